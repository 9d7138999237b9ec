"""The example apps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from postgres_server import run_postgres
from sqlalchemy import select

import chatstream_flask.examples
from chatstream_flask.chat.app_state import store_of
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.examples import accounts, front_server, password_login
from chatstream_flask.extension import chat_streams_of

FOLDER = Path(chatstream_flask.examples.__file__).parent
ECHO: dict[str, Any] = {"use_mock_response": True, "mock_params": {"type": "echo", "time_per_token_sec": 0.0}}
PASSWORD = "correct horse"


@contextmanager
def running(app: Flask) -> Iterator[Flask]:
    (chat_stream,) = chat_streams_of(app)
    try:
        yield app
    finally:
        chat_stream.close()
        chat_stream.engine.check_idle()


def say(client: FlaskClient, path: str, user_input: str, **options: Any) -> str:
    response = client.post(path, json={"user_input": user_input}, **options)
    assert response.status_code == 200, response.text
    return response.text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_can_be_read_at_one_go(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100


def test_simple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "chatstream_flask.examples.simple", raising=False)
    simple = importlib.import_module("chatstream_flask.examples.simple")
    with running(simple.app) as app:
        lucy, ben = app.test_client(), app.test_client()
        assert say(lucy, "/chat_stream", "My name is Lucy.")
        assert say(lucy, "/chat_stream", "What is my name?")
        assert say(ben, "/chat_stream", "Hello!")
        with lucy:
            say(lucy, "/chat_stream", "Goodbye!")
            assert simple.chat_stream.get_chat_prompt(simple.request).get_turn() == 3
    assert (tmp_path / "instance").is_dir()


# -- accounts ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    yield from run_postgres()


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    url = f"sqlite:///{tmp_path}/accounts.db"
    if request.param == "postgresql":
        port = request.getfixturevalue("postgres_port")
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    monkeypatch.setenv("DATABASE_URL", url)
    with running(accounts.create_app(**ECHO)) as app:
        yield app
    with app.extensions["password_login"].begin() as connection:
        connection.execute(password_login.users.delete())
    app.extensions["password_login"].dispose()
    cast(SQLStore, store_of(app)).close()


def visitor(app: Flask, name: str = "", how: str = "signup") -> FlaskClient:
    """Return a new browser, logged in if there is a name."""
    client = app.test_client()
    if name:
        enter(client, name, how)
    return client


def enter(client: FlaskClient, name: str, how: str = "signup") -> None:
    assert client.post(f"/{how}", json={"name": name, "password": PASSWORD}).status_code == 200


def conversations(client: FlaskClient) -> dict[str, str]:
    """Their titles, by id."""
    response = client.get("/conversations")
    assert response.status_code == 200
    return {info["id"]: info["title"] for info in response.get_json()}


def create(client: FlaskClient, title: str) -> str:
    conversation_id: str = client.post("/conversations", json={"title": title}).get_json()["id"]
    return conversation_id


def contents(client: FlaskClient, conversation_id: str) -> list[str]:
    response = client.get(f"/conversations/{conversation_id}/export.json")
    assert response.status_code == 200
    return [message["content"] for message in response.get_json()["messages"]]


def test_a_user_has_many_named_conversations(app: Flask) -> None:
    lucy = visitor(app, "lucy")
    assert conversations(lucy) == {}
    tea, cake = create(lucy, "Tea"), create(lucy, "Cake")
    assert say(lucy, f"/conversations/{tea}/chat_stream", "Green?") == "Green?"
    assert say(lucy, f"/conversations/{cake}/chat_stream", "Apple?") == "Apple?"
    assert lucy.patch(f"/conversations/{tea}", json={"title": "Green tea"}).status_code == 200
    assert list(conversations(lucy).items()) == [(cake, "Cake"), (tea, "Green tea")]  # the newest first
    assert contents(lucy, tea) == ["Green?", "Green?"]
    assert lucy.delete(f"/conversations/{cake}").status_code == 200
    assert conversations(lucy) == {tea: "Green tea"}
    assert lucy.get(f"/conversations/{cake}/export.json").status_code == 404
    assert lucy.post("/chat_stream", json={"user_input": "Which one?"}).status_code == 404


def test_a_conversation_goes_on_on_another_device(app: Flask) -> None:
    phone = visitor(app, "lucy")
    found = create(phone, "Tea")
    say(phone, f"/conversations/{found}/chat_stream", "one")
    laptop = visitor(app, "lucy", "login")
    assert conversations(laptop) == {found: "Tea"}
    say(laptop, f"/conversations/{found}/chat_stream", "two")
    assert contents(phone, found) == contents(laptop, found) == ["one", "one", "two", "two"]


def test_an_anonymous_conversation_is_adopted_at_login(app: Flask) -> None:
    visitor(app, "lucy")
    client = visitor(app)
    say(client, "/chat_stream", "one")
    cookie = client.get_cookie("session")
    assert cookie is not None
    enter(client, "lucy", "login")
    (found,) = conversations(client)
    say(client, f"/conversations/{found}/chat_stream", "two")
    assert contents(client, found) == ["one", "one", "two", "two"]

    thief = visitor(app)
    thief.set_cookie("session", cookie.value)
    say(thief, "/chat_stream", "what was said?")
    assert thief.get(f"/conversations/{found}/export.json").status_code == 404
    enter(thief, "ben")
    (other,) = conversations(thief)
    assert (other != found, contents(thief, other)) == (True, ["what was said?"] * 2)
    assert len(contents(client, found)) == 4


def test_without_login_there_is_the_sessions_own(app: Flask) -> None:
    first, second = visitor(app), visitor(app)
    for client, words in ((first, "one"), (second, "other"), (first, "two")):
        say(client, "/chat_stream", words)
    enter(first, "lucy")
    (found,) = conversations(first)
    assert contents(first, found) == ["one", "one", "two", "two"]
    assert second.get("/conversations").status_code == 401


def test_somebody_elses_conversation_does_not_exist(app: Flask) -> None:
    lucy, ben, stranger = visitor(app, "lucy"), visitor(app, "ben"), visitor(app)
    found = create(lucy, "Tea")
    say(lucy, f"/conversations/{found}/chat_stream", "one")
    for client in (ben, stranger):
        answers = [
            [
                client.post(f"/conversations/{wanted}/chat_stream", json={"user_input": "hi"}),
                client.get(f"/conversations/{wanted}/export.json"),
                client.get(f"/conversations/{wanted}/export.md"),
                client.delete(f"/conversations/{wanted}"),
            ]
            for wanted in (found, "there-is-no-such")
        ]
        assert {answer.status_code for answer in answers[0]} == {404}
        assert [answer.data for answer in answers[0]] == [answer.data for answer in answers[1]]
        changed = client.patch(f"/conversations/{found}", json={"title": "Mine"})
        assert changed.status_code == (404 if client is ben else 401)
    assert conversations(lucy) == {found: "Tea"}
    assert contents(lucy, found) == ["one", "one"]


def test_export(app: Flask) -> None:
    lucy = visitor(app, "lucy")
    found = create(lucy, "Tea")
    say(lucy, f"/conversations/{found}/chat_stream", "Green?\nBlack?")
    asked, replied = lucy.get(f"/conversations/{found}/export.json").get_json()["messages"]
    assert (asked["role"], asked["content"]) == ("user", "Green?\nBlack?")
    assert (replied["role"], len(replied["message_id"])) == ("assistant", 32)
    markdown = lucy.get(f"/conversations/{found}/export.md")
    assert markdown.content_type == "text/markdown; charset=utf-8"
    quotation = "\n\n> Green?\n> Black?\n"
    assert markdown.text == f"**User**{quotation}\n**Assistant**{quotation}"
    assert lucy.get(f"/conversations/{found}/export.exe").status_code == 404


def test_login_is_honest(app: Flask) -> None:
    lucy = visitor(app, "lucy")
    with app.extensions["password_login"].connect() as connection:
        kept = connection.execute(select(password_login.users.c.password_hash)).scalar_one()
    assert kept.startswith("scrypt:") and PASSWORD not in kept
    client = visitor(app)
    for body, status in (
        ({"name": "lucy", "password": "wrong horse"}, 403),
        ({"name": "nobody", "password": PASSWORD}, 403),
        ({"name": "lucy"}, 400),
        ({"name": "lucy", "password": 12345678}, 400),
        (["lucy", PASSWORD], 400),
    ):
        assert client.post("/login", json=body).status_code == status
    assert client.post("/login", data={"name": "lucy", "password": PASSWORD}).status_code == 415
    assert client.post("/signup", json={"name": "lucy", "password": "another one"}).status_code == 409
    assert client.post("/signup", json={"name": "ben", "password": "short"}).status_code == 400
    assert client.get("/conversations").status_code == 401
    assert lucy.post("/logout").status_code == 200
    assert lucy.get("/conversations").status_code == 401


# -- front_server --------------------------------------------------------------------------------------


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRONT_SECRET", "s3cret")
    with running(front_server.create_app(**ECHO)) as app:
        yield app


def headers(key: str, secret: str = "s3cret") -> dict[str, str]:
    return {"X-Front-Secret": secret, "X-Conversation-Key": key}


def test_the_front_server_names_the_conversation(front: Flask) -> None:
    client = front.test_client(use_cookies=False)
    for key, words in (("user-7.tea", "one"), ("user-8", "other"), ("user-7.tea", "two")):
        response = client.post("/chat_stream", json={"user_input": words}, headers=headers(key))
        assert response.text == words
        assert not {"Set-Cookie", "Vary"} & set(response.headers.keys())
    shown = client.get("/conversation", headers=headers("user-7.tea"))
    assert [message["content"] for message in shown.get_json()] == ["one", "one", "two", "two"]
    assert client.delete("/conversation", headers=headers("user-7.tea")).get_json()["success"] is True
    assert client.get("/conversation", headers=headers("user-7.tea")).get_json() == []
    assert len(client.get("/conversation", headers=headers("user-8")).get_json()) == 2


@pytest.mark.parametrize("secret", ["", "s3cre", "s3cret2", "S3CRET", "geheimnißvoll"])
def test_nobody_else_can_name_one(front: Flask, secret: str) -> None:
    client = front.test_client(use_cookies=False)
    say(client, "/chat_stream", "one", headers=headers("key"))
    for response in (
        client.post("/chat_stream", json={"user_input": "hi"}, headers=headers("key", secret)),
        client.get("/conversation", headers=headers("key", secret)),
        client.delete("/conversation", headers=headers("key", secret)),
    ):
        assert response.status_code == 403
        assert response.get_json()["error"] == "not_from_front_server"
        assert "Set-Cookie" not in response.headers
    assert len(client.get("/conversation", headers=headers("key")).get_json()) == 2


@pytest.mark.parametrize("key", ["", "a b", "a/b", "x" * 129, "ß"])
def test_a_key_that_is_none_is_refused(front: Flask, key: str) -> None:
    response = front.test_client().post("/chat_stream", json={"user_input": "hi"}, headers=headers(key))
    assert (response.status_code, response.get_json()["error"]) == (400, "bad_request")


def test_without_a_secret_it_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRONT_SECRET", raising=False)
    with running(front_server.create_app(**ECHO)) as app:
        secret = capsys.readouterr().out.split()[-1]
        assert len(secret) == 43
        assert say(app.test_client(), "/chat_stream", "hi", headers=headers("key", secret)) == "hi"
        assert app.test_client().get("/conversation", headers=headers("key", "")).status_code == 403
