"""What a client without a cookie leaves on the server: nothing, until a message of it is accepted."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, session
from flask_fakes import (
    SSE,
    Chat,
    ScriptedRunner,
    cookie_name,
    make_chat,
    read_events,
    read_until,
    running_chat,
    say,
    stopping,
    talk,
)
from flask_session import Session
from redis_server import connect, run_redis
from werkzeug.test import TestResponse

from chatstream_flask import SimpleSessionRequestHandler
from chatstream_flask.conversation.file_sessions import FileSessionInterface
from chatstream_flask.views import create_chat_blueprint, create_operations_blueprint

OPTIONS: dict[str, Any] = {"max_queue_size": 0, "num_of_concurrent_executions": 1, "context_len": 300}
REFUSED: dict[str, tuple[str, Any, int]] = {
    "not JSON": ("/chat_stream", b"{", 400),
    "unknown field": ("/chat_stream", {"user_input": "a", "temprature": 1}, 400),
    "longer than the context": ("/chat_stream", {"user_input": "a" * 400}, 400),
    "nothing to regenerate": ("/chat_stream", {"regenerate": True}, 400),
    "unknown message": ("/chat_stream", {"user_input": "a", "edited_message_id": "1"}, 400),
    "wrong setting": ("/set_generation_params", {"temperature": 3}, 400),
    "no setting": ("/set_generation_params", {}, 200),
    "default settings": ("/set_generation_params", None, 200),
    "feedback": ("/set_feedback", {"message_id": "1", "is_like": True}, 404),
    "cancel": ("/chat_stream/1/cancel", {}, 404),
    "clear": ("/clear_context", {}, 200),
}


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with running_site(make_chat(tmp_path / "store", **OPTIONS)) as chat:
        yield chat


def running_site(chat: Chat) -> Any:
    chat.chat_stream.init_app(chat.app)
    chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream))
    chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
    return stopping(chat)


def num_files(chat: Chat) -> int:
    return len(list(Path(chat.app.config["CHATSTREAM_STORE_DIR"]).glob("?" * 64)))


def leaves_nothing(chat: Chat, response: TestResponse) -> bool:
    response.close()
    return "Set-Cookie" not in response.headers and num_files(chat) == 0


def get_routes(app: Flask) -> list[str]:
    """Return a URL of every route with GET."""
    adapter = app.url_map.bind("localhost")
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    return [adapter.build(rule.endpoint, dict.fromkeys(rule.arguments, "status.js"), "GET") for rule in rules]


def test_reading_leaves_nothing_behind(chat: Chat) -> None:
    urls = get_routes(chat.app)
    assert {"/conversation", "/get_prompt", "/get_generation_params", "/chat_stream/status.js"} <= set(urls)
    for url in urls:
        assert leaves_nothing(chat, chat.client().get(url)), url


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_leaves_nothing_behind(chat: Chat, kind: str) -> None:
    path, body, status = REFUSED[kind]
    given = {"data": body} if isinstance(body, bytes) else {"json": body}
    if body is None:
        given = {"data": "null"}
    response = chat.client().post(path, content_type="application/json", **given)
    assert response.status_code == status, response.text
    assert leaves_nothing(chat, response)


def test_a_full_queue_leaves_nothing_behind(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_site(make_chat(tmp_path, runner, **OPTIONS)) as chat:
        first = chat.client()
        events = read_events(say(first, "one"))
        read_until(events, "start")
        assert num_files(chat) == 1  # the session; the conversation is kept when the reply ends
        refused = chat.client().post("/chat_stream", json={"user_input": "two"}, headers=SSE)
        assert "Set-Cookie" not in refused.headers
        assert num_files(chat) == 1
        runner.release()
        read_until(events, "done")
        assert num_files(chat) == 3  # the conversation and the list of the visitor, too


def test_an_accepted_message_makes_the_session_and_one_setting_does_too(chat: Chat) -> None:
    client, other = chat.client(), chat.client()
    response = say(client, "one")
    assert cookie_name(client) in response.headers["Set-Cookie"]
    read_until(read_events(response), "done")
    assert len(client.get("/conversation").get_json()["messages"]) == 2
    other.post("/set_generation_params", json={"temperature": 0.5})
    assert other.get("/get_generation_params").get_json()["generation_params"]["temperature"] == 0.5
    assert num_files(chat) == 5  # two sessions, two conversations, and a list of the one with a turn


def test_looking_at_a_page_while_the_first_message_is_sent_changes_no_session(tmp_path: Path) -> None:
    """The requests of one page go out together, before there is a cookie: only the message may set one."""
    runner = ScriptedRunner(is_held=True)
    with running_site(make_chat(tmp_path, runner, **OPTIONS)) as chat:
        page = chat.client()
        reply = read_events(say(page, "first"))
        late = [chat.client().get(url) for url in ("/conversation", "/get_generation_params", "/get_prompt")]
        for answer in late:  # the browser puts their cookies, if any, over that of the message
            assert "Set-Cookie" not in answer.headers
        runner.release()
        read_until(reply, "done")
        talk(page, "second")
        texts = [message["text"] for message in page.get("/conversation").get_json()["messages"]]
        assert texts == ["first", "ok", "second", "ok"]


def test_first_messages_at_once_without_a_cookie_are_two_whole_conversations(tmp_path: Path) -> None:
    """Nothing says that they come from one browser; each finds its own with the cookie that it got."""
    runner = ScriptedRunner(is_held=True)
    options = OPTIONS | {"num_of_concurrent_executions": 2}
    with running_site(make_chat(tmp_path, runner, **options)) as chat:
        clients = [chat.client(), chat.client()]
        replies = [read_events(say(client, text)) for client, text in zip(clients, "ab", strict=True)]
        runner.release()
        for reply in replies:
            read_until(reply, "done")
        for client, text in zip(clients, "ab", strict=True):
            messages = client.get("/conversation").get_json()["messages"]
            assert [message["text"] for message in messages] == [text, "ok"]


def test_a_session_of_ours_that_is_only_read_is_not_written_again(tmp_path: Path) -> None:
    """Else a request that read it before another one changed it would undo the change."""
    with running_chat(tmp_path) as chat:

        @chat.app.get("/note/<word>")
        def note(word: str) -> str:
            session["note"] = word
            return word

        @chat.app.get("/look")
        def look() -> dict[str, Any]:
            seen = dict(session)
            if seen["note"] == "one":
                client.get("/note/two")
            return seen

        client = chat.client()
        client.get("/note/one")
        assert client.get("/look").get_json()["note"] == "one"
        assert client.get("/look").get_json()["note"] == "two"


def test_reading_a_session_of_ours_lets_it_live_on(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client = chat.client()
        talk(client, "one")
        interface = chat.app.session_interface
        assert isinstance(interface, FileSessionInterface)
        cookie = client.get_cookie(cookie_name(client))
        assert cookie is not None
        key = interface._get_store_id(cookie.value)
        data = interface.cache.get(key)
        interface.cache.set(key, data, timeout=60)
        file = Path(interface.cache._get_filename(key))
        text = file.read_bytes()[4:]
        client.get("/history")
        content = file.read_bytes()
        (expires_at,) = struct.unpack("I", content[:4])
        lifetime = chat.app.permanent_session_lifetime.total_seconds()
        assert abs(expires_at - time.time() - lifetime) < 60
        assert content[4:] == text
        client.get("/history")
        assert file.read_bytes() == content


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from run_redis(tmp_path_factory.mktemp("redis"))


def test_reading_leaves_nothing_in_the_back_end_of_the_hosts_sessions(
    tmp_path: Path, redis_port: int
) -> None:
    chat = make_chat(tmp_path, **OPTIONS)
    client = connect(redis_port)
    chat.app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    Session(chat.app)  # type: ignore[no-untyped-call]
    with running_site(chat):
        for url in get_routes(chat.app):
            response = chat.client().get(url)
            response.close()
            assert "Set-Cookie" not in response.headers
        assert client.keys() == []
    client.close()


class Forgetful(SimpleSessionRequestHandler):
    def keep_conversation_id(self, request: Request) -> None:
        raise RuntimeError("no place for it")


def test_a_reply_that_its_visitor_could_not_find_again_is_not_generated(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, request_handler=Forgetful()) as chat:
        with pytest.raises(RuntimeError, match="no place for it"):
            say(chat.client(), "hi")
        assert chat.word() == "unknown_error_occurred"
        chat.check_idle()


def test_a_session_id_that_a_client_made_up_is_not_taken_over(tmp_path: Path) -> None:
    """Whoever plants a cookie in a browser must not know the session that begins with it."""
    with running_chat(tmp_path) as chat:
        client = chat.client()
        name = cookie_name(client)
        client.set_cookie(name, "A" * 43)
        talk(client, "hi")
        cookie = client.get_cookie(name)
        assert cookie is not None and cookie.value != "A" * 43
