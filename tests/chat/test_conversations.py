"""Many conversations of one visitor: their API, and who may do what with which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from flask.testing import FlaskClient
from flask_fakes import SSE, Chat, ScriptedRunner, make_chat, read_events, read_until, stopping
from werkzeug.test import TestResponse

from chatstream_flask import SimpleSessionRequestHandler
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.views import create_chat_blueprint


class UserHandler(SimpleSessionRequestHandler):
    """Takes the user from a header, as a login would from the session."""

    def get_owner(self, request: Request) -> str | None:
        return request.headers.get("X-User") or super().get_owner(request)


class OwnIdHandler(SimpleSessionRequestHandler):
    def get_conversation_id(self, request: Request) -> str:
        return "ticket:7"


def site(tmp_path: Path, runner: ScriptedRunner | None = None, **options: Any) -> Chat:
    chat = make_chat(tmp_path / "store", runner, options.pop("config", None), **options)
    chat.chat_stream.init_app(chat.app)
    chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream))
    return chat


@pytest.fixture(params=[None, "memory://", "sqlite"])
def chat(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chat]:
    url = f"sqlite:///{tmp_path / 'chat.db'}" if request.param == "sqlite" else request.param
    config = {"CHATSTREAM_STORE": url, "CHATSTREAM_MAX_CONVERSATIONS_PER_VISITOR": 3}
    with stopping(site(tmp_path, config=config, request_handler=UserHandler())) as chat:
        if request.param == "sqlite":
            assert isinstance(chat.state.store, SQLStore)
            chat.state.store.create_or_migrate()
        yield chat


def say(client: FlaskClient, text: str, conversation_id: str | None = None, **headers: str) -> TestResponse:
    query = {} if conversation_id is None else {"conversation_id": conversation_id}
    return client.post("/chat_stream", json={"user_input": text}, headers=SSE | headers, query_string=query)


def talk(client: FlaskClient, text: str, conversation_id: str | None = None, **headers: str) -> None:
    assert list(read_events(say(client, text, conversation_id, **headers)))[-1].name == "done"


def listed(client: FlaskClient, search: str = "", **headers: str) -> list[dict[str, Any]]:
    answer = client.get("/conversations", query_string={"search": search}, headers=headers).get_json()
    return list(answer["conversations"])


def titles(client: FlaskClient, search: str = "", **headers: str) -> list[str]:
    return [entry["title"] for entry in listed(client, search, **headers)]


def texts(client: FlaskClient, conversation_id: str | None = None, **headers: str) -> list[str]:
    query = {} if conversation_id is None else {"conversation_id": conversation_id}
    answer = client.get("/conversation", query_string=query, headers=headers)
    return [message["text"] for message in answer.get_json()["messages"]]


def begin(client: FlaskClient, **body: Any) -> str:
    answer = client.post("/conversations", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["id"])


def test_the_first_is_listed_with_its_first_words_and_others_beside_it(chat: Chat) -> None:
    client = chat.client()
    talk(client, "Hello there")
    second = begin(client)
    talk(client, "Where do whales sleep?", second)
    talk(client, "And why?", second)
    assert titles(client) == ["Where do whales sleep?", "Hello there"]
    assert texts(client) == ["Hello there", "ok"]
    assert texts(client, second) == ["Where do whales sleep?", "ok", "And why?", "ok"]
    assert texts(client, listed(client)[1]["id"]) == texts(client)
    assert chat.runner.prompts[-1] == "U:Where do whales sleep?|A:ok|U:And why?|A:"
    assert titles(client, "whale") == ["Where do whales sleep?"]


def test_each_has_its_settings(chat: Chat) -> None:
    client = chat.client()
    second = begin(client)
    url = f"/set_generation_params?conversation_id={second}"
    assert client.post(url, json={"temperature": 0.25}).status_code == 200
    own = client.get("/get_generation_params").get_json()["generation_params"]
    seconds = client.get(f"/get_generation_params?conversation_id={second}").get_json()["generation_params"]
    assert (own["temperature"], seconds["temperature"]) == (1.0, 0.25)


def test_renamed_pinned_and_deleted(chat: Chat) -> None:
    client = chat.client()
    talk(client, "Hello there")
    talk(client, "Good evening", begin(client))
    first = listed(client)[1]["id"]
    changed = client.patch(f"/conversations/{first}", json={"title": "  A\n name ", "is_pinned": True})
    assert (changed.get_json()["title"], changed.get_json()["is_pinned"]) == ("A name", True)
    assert titles(client) == ["A name", "Good evening"]
    assert client.delete(f"/conversations/{first}").status_code == 204
    assert titles(client) == ["Good evening"]
    assert texts(client) == []
    for answer in (
        client.delete(f"/conversations/{first}"),
        client.patch(f"/conversations/{first}", json={"title": "again"}),
        client.get(f"/conversation?conversation_id={first}"),
        client.get(f"/conversations/{first}/export.md"),
        say(client, "Hello?", first),
    ):
        assert answer.status_code == 404
        assert answer.get_json()["detail"].startswith("you have no conversation with this id")
    talk(client, "Hello again")  # the session's first one begins anew
    assert titles(client) == ["Hello again", "Good evening"]


def test_clearing_takes_it_off_the_list(chat: Chat) -> None:
    client = chat.client()
    talk(client, "Hello there")
    client.post("/clear_context")
    assert titles(client) == []


def test_an_export_is_imported_as_a_copy(chat: Chat) -> None:
    client = chat.client()
    talk(client, "Hello there")
    (entry,) = listed(client)
    exported = client.get(f"/conversations/{entry['id']}/export.json")
    assert exported.headers["Content-Disposition"] == "attachment; filename=conversation.json"
    copy = begin(client, **exported.get_json())
    assert titles(client) == ["Hello there"] * 2
    assert texts(client, copy) == ["Hello there", "ok"]
    talk(client, "Go on", copy)
    assert texts(client) == ["Hello there", "ok"]
    markdown = client.get(f"/conversations/{entry['id']}/export.md")
    assert markdown.text == "# Hello there\n\n**User**\n\n> Hello there\n\n**Assistant**\n\n> ok\n"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": ["a"]},
        {"messages": {}},
        {"title": ""},
        {"title": "a" * 201},
        {"title": 1},
        {"name": "a"},
    ],
)
def test_what_cannot_be_imported_is_told(tmp_path: Path, body: dict[str, Any]) -> None:
    with stopping(site(tmp_path)) as chat:
        client = chat.client()
        assert client.post("/conversations", json=body).status_code == 400
        assert titles(client) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "offset=-1", f"search={'a' * 201}"])
def test_what_cannot_be_listed_is_told(tmp_path: Path, query: str) -> None:
    with stopping(site(tmp_path)) as chat:
        assert chat.client().get(f"/conversations?{query}").status_code == 400


def test_a_list_in_parts(chat: Chat) -> None:
    client = chat.client()
    for title in ("one", "two", "three"):
        begin(client, title=title)
    first, rest = (client.get(f"/conversations?limit=2&offset={n}").get_json() for n in (0, 2))
    assert [entry["title"] for entry in first["conversations"]] == ["three", "two"]
    assert (first["has_more"], rest["has_more"], len(rest["conversations"])) == (True, False, 1)
    refused = client.post("/conversations", json={})
    assert (refused.status_code, refused.get_json()["error"]) == (409, "too_many_conversations")


def test_nobody_elses(chat: Chat) -> None:
    lucy, bob = chat.client(), chat.client()
    talk(lucy, "Hello there")
    (entry,) = listed(lucy)
    assert titles(bob) == titles(bob, "Hello") == []
    assert say(bob, "Hi", entry["id"]).status_code == 404
    assert bob.delete(f"/conversations/{entry['id']}").status_code == 404
    assert titles(lucy) == ["Hello there"]


def test_a_user_has_the_same_list_in_every_session_and_nobody_after_the_logout(chat: Chat) -> None:
    phone, desktop = chat.client(), chat.client()
    lucy, bob = {"X-User": "lucy"}, {"X-User": "bob"}
    talk(phone, "Before the login")
    talk(phone, "On the phone", **lucy)
    talk(desktop, "On the desktop", **lucy)
    assert titles(phone, **lucy) == titles(desktop, **lucy) == ["On the desktop", "On the phone"]
    assert titles(phone) == ["Before the login"]
    assert texts(phone) == ["Before the login", "ok"]
    assert texts(phone, **bob) == [] and titles(phone, **bob) == []
    on_phone = listed(phone, **lucy)[1]["id"]
    assert texts(desktop, on_phone, **lucy) == ["On the phone", "ok"]
    assert say(phone, "Whose is it?", on_phone).status_code == 404


def test_deleted_during_a_reply(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with stopping(site(tmp_path, runner)) as chat:
        client = chat.client()
        second = begin(client)
        events = read_events(say(client, "Hello", second))
        read_until(events, "start")
        renamed = client.patch(f"/conversations/{second}", json={"title": "Renamed meanwhile"})
        assert renamed.status_code == 200
        assert client.delete(f"/conversations/{second}").status_code == 204
        runner.release()
        list(events)
        assert titles(client) == titles(client, "Hello") == []


def test_a_turn_is_stored_though_the_list_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stopping(site(tmp_path, config={"CHATSTREAM_STORE": "memory://"})) as chat:
        client = chat.client()
        talk(client, "Hello")
        store = chat.state.store
        owner = f"session:{listed(client)[0]['id']}"
        lease = store.hold(f"chatstream-list:{owner}")
        lease.save({"v": 99})  # as a newer version may write it
        lease.close()
        talk(client, "Are you there?")
        assert texts(client) == ["Hello", "ok", "Are you there?", "ok"]
        assert "was stored, but not entered into its owner's list" in caplog.text
        assert client.get("/conversations").status_code == 503


def test_a_handler_that_names_conversations_itself_has_no_lists(tmp_path: Path) -> None:
    with stopping(site(tmp_path, request_handler=OwnIdHandler())) as chat:
        client = chat.client()
        talk(client, "Hello")
        answer = client.get("/conversations")
        assert answer.status_code == 404
        assert answer.get_json()["detail"] == "this site keeps no list of your conversations"
        assert texts(chat.client(), "anything") == ["Hello", "ok"]


def test_each_chat_stream_of_an_app_has_its_own_lists(tmp_path: Path) -> None:
    with stopping(make_chat(tmp_path, name="large")) as large, stopping(make_chat(tmp_path)) as small:
        for chat in (large, small):
            chat.chat_stream.init_app(small.app)
            small.app.register_blueprint(create_chat_blueprint(chat.chat_stream))
        large.app = small.app
        client = small.client()
        begin(client, title="small")
        answer = client.post("/large/conversations", json={"title": "large"})
        given_id = answer.get_json()["id"]
        assert ":" not in given_id
        assert titles(client) == ["small"]
        (entry,) = client.get("/large/conversations").get_json()["conversations"]
        assert (entry["id"], entry["title"]) == (given_id, "large")
        assert client.get(f"/conversation?conversation_id={given_id}").status_code == 404
        assert client.get(f"/large/conversation?conversation_id={given_id}").status_code == 200
