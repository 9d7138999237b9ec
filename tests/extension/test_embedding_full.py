"""A chat in an app with many extensions: neither changes the other."""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import TIMEOUT
from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask_fakes import (
    SSE,
    PlainPrompt,
    ScriptedRunner,
    ScriptedSource,
    parse_event,
    read_events,
    read_until,
    say,
    set_source,
    talk,
)
from flask_session import Session
from host_app import User, create_app, csrf, db
from sqlalchemy.pool import QueuePool
from werkzeug.test import TestResponse

from chatstream_flask import ChatStream
from chatstream_flask.chat.request_handler import SESSION_KEY
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.settings import Settings
from chatstream_flask.views import create_chat_blueprint

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")
RAW_TOKEN = "0" * 40  # of the host's CSRF protection; random otherwise
SIGNED_DATE = re.compile(rb"(?<=\.)[\w-]{6}\.[\w-]{27}(?![\w-])")
REFERER = "https://shop.example/tea/"
PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Forwarded-Prefix": "/tea"}


@dataclass
class Host:
    app: Flask
    chat_stream: ChatStream
    runner: ScriptedRunner
    words: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)  # given to the callback

    def client(self) -> FlaskClient:
        client = self.app.test_client()
        with client.session_transaction() as session:
            session["csrf_token"] = RAW_TOKEN
        return client

    @property
    def num_connections_in_use(self) -> int:
        with self.app.app_context():
            pool = db.engine.pool
        assert isinstance(pool, QueuePool) and pool.size() == 1
        return pool.checkedout()


@contextmanager
def host(folder: Path, add_view: Callable[[Host], None] | None, **config: Any) -> Iterator[Host]:
    """`add_view` and `init_app` are all that makes it a chat; None leaves it the host that it was."""
    runner = ScriptedRunner()
    chat_stream = ChatStream(use_mock_response=True, chat_prompt_clazz=PlainPrompt)
    set_source(chat_stream, ScriptedSource(runner, 1024))
    folder.mkdir(exist_ok=True)
    app = create_app(folder, chat_stream.init_app if add_view else None, **config)
    host = Host(app, chat_stream, runner)
    if add_view is not None:
        add_view(host)
    try:
        yield host
    finally:
        runner.release()
        chat_stream.engine.stop()
        chat_stream.engine.check_idle()
        assert host.num_connections_in_use == 0  # after all callbacks
        with host.app.app_context():
            db.engine.dispose()


def exempt(host: Host) -> None:
    """As docs/embedding.md has it."""
    app, chat_stream = host.app, host.chat_stream

    @app.post("/chat_stream")
    @csrf.exempt
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request, callback=on_end)

    def on_end(request: Request, message: str) -> None:
        """Use the host's database, as callbacks do."""
        assert db.session.query(User).count() == 1
        host.words.put(message)


def protected(host: Host) -> None:
    @host.app.post("/chat_stream")
    def protected_chat() -> Response:  # the host's csrf knows views by name
        return host.chat_stream.handle_chat_stream_request(request)


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, exempt) as running:
        yield running


# -- the host stays as it was --------------------------------------------------------------------------


def token_of(client: FlaskClient) -> str:
    found = re.search(r'name="csrf_token" type="hidden" value="([^"]+)"', client.get("/login").text)
    assert found is not None
    return found.group(1)


def visit(client: FlaskClient, interlude: Callable[[FlaskClient], object]) -> list[TestResponse]:
    """All that the host has; `interlude` happens in the middle of it."""
    token = token_of(client)
    responses = [
        *(
            client.get("/", headers={"Accept-Encoding": name})
            for name in ("br", "zstd", "deflate", "identity")
        ),
        client.head("/"),
        client.options("/login"),
        client.get("/profile"),
        client.get("/login"),
        client.post("/login", data={"name": "aki"}),
        client.post("/login", data={"name": "aki", "csrf_token": token}),
    ]
    interlude(client)
    return [
        *responses,
        client.get("/profile", headers=PROXY),
        client.post("/buy/tea"),
        client.post("/buy/tea", data={"csrf_token": token}),
        client.post("/buy/milk", headers={"X-CSRFToken": token}),
        client.get("/api/users"),
        client.post("/api/echo", json=[1, 2], headers=PROXY | {"X-CSRFToken": token, "Referer": REFERER}),
        client.post("/api/echo", json=[1, 2]),
        client.get("/download", headers={"Accept-Encoding": "br"}),
        client.get("/nothing"),
        client.get("/boom"),
        client.post("/logout", data={"csrf_token": token}),
        client.get("/profile"),
    ]


def shown(app: Flask, response: TestResponse) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return a response without its dates, one of which is in a signature."""
    headers = [
        (name, shown_cookie(app, value) if name == "Set-Cookie" else value)
        for name, value in response.headers
        if name != "Date"
    ]
    return response.status, headers, SIGNED_DATE.sub(b"DATE", response.data)


def shown_cookie(app: Flask, header: str) -> str:
    """With the session instead of its signed form, and without our one key in it."""
    (cookie,) = SimpleCookie(header).values()
    assert isinstance(app.session_interface, SecureCookieSessionInterface)
    serializer = app.session_interface.get_signing_serializer(app)
    assert serializer is not None
    session = serializer.loads(cookie.value)
    session.pop(SESSION_KEY, None)
    return header.replace(cookie.value, repr(session))


def config_of(app: Flask) -> dict[str, Any]:
    return {
        name: value
        for name, value in app.config.items()
        if not name.startswith(("CHATSTREAM_", "SQLALCHEMY_DATABASE_URI"))
    }


def nothing(client: FlaskClient) -> None: ...


@pytest.mark.parametrize("interlude", [nothing, lambda client: talk(client, "hi")], ids=["unused", "used"])
def test_all_that_the_host_answers_stays_the_same(
    tmp_path: Path, interlude: Callable[[FlaskClient], object]
) -> None:
    with host(tmp_path / "without", None) as before, host(tmp_path / "with", exempt) as after:
        expected = [shown(before.app, response) for response in visit(before.client(), nothing)]
        answered = [shown(after.app, response) for response in visit(after.client(), interlude)]
        assert answered == expected
        assert config_of(after.app) == config_of(before.app)
        assert interlude is nothing or after.words.get(timeout=TIMEOUT) == "success"
        assert after.words.empty()
    codes = [int(status.split()[0]) for status, _, _ in expected]
    assert codes == [200] * 6 + [302, 200, 400, 302, 200, 400] + [200] * 4 + [400, 200, 404, 500, 302, 302]
    assert [dict(headers).get("Content-Encoding") for _, headers, _ in expected[:3]] == [
        "br",
        "zstd",
        "deflate",
    ]
    assert b"aki, visit 1" in expected[10][2]


# -- the chat works in it ------------------------------------------------------------------------------


def log_in(client: FlaskClient) -> FlaskClient:
    assert client.post("/login", data={"name": "aki", "csrf_token": token_of(client)}).status_code == 302
    return client


def test_a_logged_in_user_has_a_conversation(chat: Host) -> None:
    client = log_in(chat.client())
    assert (talk(client, "one"), talk(client, "two")) == ("ok", "ok")
    assert chat.runner.prompts[-1] == "U:one|A:ok|U:two|A:"
    assert client.get("/profile").text == "aki, visit 1"
    talk(client.application.test_client(), "three")
    assert chat.runner.prompts[-1] == "U:three|A:"
    assert [chat.words.get(timeout=TIMEOUT) for _ in range(3)] == ["success"] * 3


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize("config", [{}, {"COMPRESS_MIMETYPES": ["text/plain", "text/event-stream"]}])
def test_compression_does_not_collect_a_reply(tmp_path: Path, accept: str, config: dict[str, Any]) -> None:
    """Each character leaves before the next one is made, also where the host compresses event streams."""
    with host(tmp_path, exempt, **config) as chat:
        headers = {"Accept": accept, "Accept-Encoding": "gzip, deflate, br, zstd"}
        options: dict[str, Any] = {"json": {"user_input": "hi"}, "headers": headers}
        whole = chat.client().post("/chat_stream", **options)
        assert whole.headers["Content-Encoding"] == "identity"
        assert text_of(whole.data, accept) == "ok"
        chat.runner.is_held = True
        chat.runner.allow()
        response = chat.client().post("/chat_stream", **options)
        chunks = response.iter_encoded()
        text = ""
        for letter in "ok":
            while not text.endswith(letter):
                text += text_of(next(chunks), accept)
            chat.runner.allow()
        chat.runner.release()
        assert text + "".join(text_of(chunk, accept) for chunk in chunks) == "ok"


def text_of(chunk: bytes, accept: str) -> str:
    if accept == "text/plain":
        return chunk.decode()
    events = [parse_event(block) for block in chunk.decode().split("\n\n")[:-1]]
    return "".join(event.data["text"] for event in events if event.name == "text")


def test_a_stream_holds_no_connection_of_the_hosts_database(chat: Host) -> None:
    """One is all that the host has, and each of its requests takes it."""
    chat.runner.is_held = True
    clients = [log_in(chat.client()) for _ in range(4)]  # 2 run and 2 wait
    streams = [read_events(say(client, "hi")) for client in clients]
    for stream, first in zip(streams, ("start", "start", "queue", "queue"), strict=True):
        read_until(stream, first)
    assert chat.num_connections_in_use == 0
    assert clients[0].get("/profile").text == "aki, visit 1"
    chat.runner.allow()
    read_until(streams[0], "text")
    assert chat.num_connections_in_use == 0
    assert chat.client().get("/api/users").get_json() == ["aki"]
    chat.runner.release()
    for stream in streams:
        read_until(stream, "done")


def test_a_refused_chat_holds_none_either(chat: Host) -> None:
    client = log_in(chat.client())
    chat.runner.is_held = True
    stream = read_events(say(client, "hi"))
    read_until(stream, "start")
    assert say(client, "again").status_code == 409
    assert client.post("/chat_stream", json={"user_input": 7}).status_code == 400
    assert chat.num_connections_in_use == 0
    chat.runner.release()
    read_until(stream, "done")


def test_behind_the_hosts_proxy(chat: Host) -> None:
    client = chat.client()
    for words in ("one", "two"):
        response = client.post("/chat_stream", json={"user_input": words}, headers=SSE | PROXY)
        read_until(read_events(response), "done")
    assert chat.runner.prompts[-1] == "U:one|A:ok|U:two|A:"


# -- CSRF protection -----------------------------------------------------------------------------------


def test_an_exempted_view_takes_nothing_from_the_other_ones(chat: Host) -> None:
    client = chat.client()
    assert talk(client, "hi") == "ok"
    assert client.post("/buy/tea").status_code == 400
    assert client.post("/api/echo", json=[]).status_code == 400


def test_an_exempted_view_takes_json_only(chat: Host) -> None:
    """So another site's form cannot use it, and its script must ask first."""
    for options in (
        {"data": {"user_input": "hi"}},
        {"data": '{"user_input": "hi"}', "content_type": "text/plain"},
        {"data": '{"user_input": "hi"}', "content_type": ""},
    ):
        response = chat.client().post("/chat_stream", headers=SSE, **options)
        assert response.status_code == 400
        assert "must be JSON" in response.get_json()["detail"]


def test_a_view_that_is_not_exempted_wants_the_token(tmp_path: Path) -> None:
    with host(tmp_path, protected) as chat:
        client = chat.client()
        assert say(client, "hi").status_code == 400
        assert not chat.runner.prompts
        headers = SSE | {"X-CSRFToken": token_of(client)}
        response = client.post("/chat_stream", json={"user_input": "hi"}, headers=headers)
        read_until(read_events(response), "done")
        assert chat.runner.prompts == ["U:hi|A:"]


def test_the_blueprint_can_be_mounted_and_protected(tmp_path: Path) -> None:
    def mounted(host: Host) -> None:
        host.app.register_blueprint(create_chat_blueprint(host.chat_stream), url_prefix="/assistant")

    with host(tmp_path, mounted) as chat:
        client = chat.client()
        headers = SSE | {"X-CSRFToken": token_of(client)}
        response = client.post("/assistant/chat_stream", json={"user_input": "hi"}, headers=headers)
        read_until(read_events(response), "done")
        assert client.post("/assistant/clear_context").status_code == 400
        assert client.post("/assistant/clear_context", headers=headers).status_code == 200


# -- sessions in the host's database -------------------------------------------------------------------


def test_sessions_in_the_hosts_database_and_conversations_beside_them(tmp_path: Path) -> None:
    """With a store of its own, the one connection of the host is enough also here."""

    def with_sessions(host: Host) -> None:
        exempt(host)
        host.app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
        with host.app.app_context():
            Session(host.app)  # type: ignore[no-untyped-call]

    with host(tmp_path, with_sessions, CHATSTREAM_STORE=f"sqlite:///{tmp_path}/chats.db") as chat:
        store = cast(SQLStore, chat.chat_stream.store(chat.app))
        store.create_or_migrate()
        client = chat.app.test_client()
        assert (talk(client, "one"), talk(client, "two")) == ("ok", "ok")
        assert chat.runner.prompts[-1] == "U:one|A:ok|U:two|A:"
        store.close()


# -- docs/embedding.md ---------------------------------------------------------------------------------


def test_the_page_on_embedding_is_right(tmp_path: Path) -> None:
    """All of its Python, in an app that has what it speaks of."""
    origins = ["https://www.example.com"]
    app = create_app(tmp_path, CHATSTREAM_STORE="memory://", CHATSTREAM_ALLOWED_ORIGINS=origins)
    model, tokenizer, _ = load_model(str(DEMO_MODEL), "cpu")
    names: dict[str, Any] = {"__name__": "app", "app": app, "csrf": csrf, "request": request}
    large_model, large_tokenizer, _ = load_model(str(DEMO_MODEL), "cpu")
    names |= {"model": model, "tokenizer": tokenizer}
    names |= {"large_model": large_model, "large_tokenizer": large_tokenizer}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line]) == 5
    for block in blocks:
        exec(compile(block, "docs/embedding.md", "exec"), names)
    try:
        check_embedded(app)
    finally:
        for name in ("chat_stream", "large", "titles"):
            names[name].close()
        with app.app_context():
            db.engine.dispose()


def check_embedded(app: Flask) -> None:
    client = app.test_client()
    options: dict[str, Any] = {"base_url": "https://localhost", "headers": PROXY | {"Referer": REFERER}}
    page = client.get("/login", **options)
    assert "Secure; HttpOnly; Path=/; SameSite=Lax" in page.headers["Set-Cookie"]
    found = re.search(r'value="([^"]+)"', page.text)
    assert found is not None
    body = {"user_input": "Hello!", "max_new_tokens": 3}
    assert client.post("/chat_stream", json=body, **options).status_code == 400
    assert client.post("/exempted_chat_stream", json=body, **options).text
    options["headers"] |= {"X-CSRFToken": found.group(1), "Origin": "https://www.example.com"}
    answer = client.post("/chat_stream", json=body, **options)
    assert answer.status_code == 200 and answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == "https://www.example.com"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    options["headers"] |= SSE
    answer = client.post("/support/chat_stream", json=body, **options)
    address = f"/support/chat_stream/{answer.headers['X-ChatStream-Last-Generated-Message-Id']}"
    answer.close()  # the connection is lost
    assert list(read_events(client.get(address, **options)))[-1].name == "done"
    assert client.post(f"{address}/cancel", **options).status_code == 204
    assert app.test_client().get(address, **options).status_code == 404
    assert client.post("/large/chat_stream", json=body, **options).text
    assert client.get("/large/conversation", **options).get_json()["messages"][0]["text"] == "Hello!"
    assert client.get("/titles/v1/models", **options).status_code == 200


def test_the_page_on_embedding_names_keys_that_exist() -> None:
    known = {f"CHATSTREAM_{field.name.upper()}" for field in fields(Settings)} | set(Flask("any").config)
    known |= {"SESSION_PERMANENT"}
    named = set(re.findall(r"`((?:CHATSTREAM|SESSION|PERMANENT|SECRET)_\w+)", PAGE))
    assert named and named <= known
