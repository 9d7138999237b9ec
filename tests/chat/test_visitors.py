"""Visitors that limits count for: the session, the address, or what the app says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request
from flask.testing import FlaskClient
from flask_fakes import SSE, Event, ScriptedRunner, read_events, read_until, running_chat, talk
from werkzeug.test import EnvironBuilder, TestResponse

from chatstream_flask import SimpleSessionRequestHandler
from chatstream_flask.chat.request_handler import address_of
from chatstream_flask.openai_api import create_openai_blueprint

ONE_EACH = {"CHATSTREAM_MAX_RUNNING_PER_VISITOR": 1, "CHATSTREAM_MAX_WAITING_PER_VISITOR": 0}
OPTIONS: dict[str, Any] = {"num_of_concurrent_executions": 4, "too_many_request_as_http_error": True}


def post(client: FlaskClient, address: str = "203.0.113.1") -> TestResponse:
    body, environ = {"user_input": "hello"}, {"REMOTE_ADDR": address}
    return client.post("/chat_stream", json=body, headers=SSE, environ_overrides=environ)


def begin(client: FlaskClient, address: str = "203.0.113.1") -> Iterator[Event]:
    """Return a reply that has started."""
    events = read_events(post(client, address))
    read_until(events, "start")
    return events


def check_refused(response: TestResponse, reason: str) -> None:
    assert response.status_code == 429
    assert response.get_json()["reason"] == reason
    assert int(response.headers["Retry-After"]) >= 1


def test_clients_without_cookies_are_their_address_and_sessions_are_themselves(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    with running_chat(tmp_path, runner, ONE_EACH, **OPTIONS) as chat:
        known = chat.client()
        talk(known, "now it has a cookie")
        runner.is_held = True
        replies = [begin(chat.app.test_client(use_cookies=False))]
        for _ in range(2):  # though each would get a session of its own
            check_refused(post(chat.app.test_client(use_cookies=False)), "visitor_running")
        check_refused(post(chat.client()), "visitor_running")  # it may yet lose its cookie
        replies += [begin(known), begin(chat.client(), "203.0.113.2")]
        runner.release()
        for events in replies:
            read_until(events, "done")
        assert begin(chat.client())


def test_tokens_a_minute(tmp_path: Path) -> None:
    config = {"CHATSTREAM_MAX_TOKENS_PER_MINUTE_PER_VISITOR": 20}
    with running_chat(tmp_path, config=config, **OPTIONS) as chat:
        first = chat.client()
        assert talk(first, "1") == "ok"
        assert talk(first, "2" * 20) == "ok"
        check_refused(post(first), "visitor_tokens")
        assert chat.history(first)[2:] == ["2" * 20, "ok"]
        other = chat.client()
        other.environ_base["REMOTE_ADDR"] = "203.0.113.2"
        assert talk(other, "3") == "ok"


@pytest.mark.parametrize("path", ["/chat_stream", "/v1/chat/completions"])
def test_a_prompt_that_is_refused_as_too_long_has_used_its_tokens(tmp_path: Path, path: str) -> None:
    config = {"CHATSTREAM_MAX_TOKENS_PER_MINUTE_PER_VISITOR": 1000}
    with running_chat(tmp_path, config=config, context_len=300, **OPTIONS) as chat:
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        client, long = chat.client(), "2" * 600
        body: dict[str, Any] = {"user_input": long}
        if path.startswith("/v1"):
            body = {"model": "scripted", "messages": [{"role": "user", "content": long}]}
        statuses = [client.post(path, json=body).status_code for _ in range(3)]
        assert statuses == [400, 400, 429]


class Team(SimpleSessionRequestHandler):
    def get_visitor(self, request: Request) -> str | None:
        return request.headers.get("X-Team")


def test_app_says_who_the_visitor_is(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, ONE_EACH, request_handler=Team(), **OPTIONS) as chat:
        clients = [chat.client() for _ in range(3)]
        for client in clients[:2]:
            client.environ_base["HTTP_X_TEAM"] = "red"
        replies = [begin(clients[0]), begin(clients[2]), begin(chat.client())]  # of nobody, without limits
        check_refused(post(clients[1]), "visitor_running")
        runner.release()
        for events in replies:
            read_until(events, "done")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "address:203.0.113.7"),
        ("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "address:2001:db8:1:2::"),
        ("2001:db8:1:2::1", "address:2001:db8:1:2::"),
        ("::ffff:203.0.113.7", "address:203.0.113.7"),
        ("", None),
        ("unix:", None),
        (None, None),
    ],
)
def test_address(address: str | None, name: str | None) -> None:
    environ = EnvironBuilder("/").get_environ()
    environ.pop("REMOTE_ADDR", None)
    if address is not None:
        environ["REMOTE_ADDR"] = address
    with Flask("host").request_context(environ):
        assert address_of(Request(environ)) == name


class PayingFirst(SimpleSessionRequestHandler):
    def get_priority(self, request: Request) -> int:
        return int(request.headers.get("X-Pays", 0))


def test_app_says_who_comes_first(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    options = OPTIONS | {"num_of_concurrent_executions": 1, "max_queue_size": 2}
    with running_chat(tmp_path, runner, request_handler=PayingFirst(), **options) as chat:
        paying = chat.client()
        paying.environ_base["HTTP_X_PAYS"] = "1"
        replies = [begin(chat.client()), read_events(post(chat.client())), read_events(post(paying))]
        assert next(replies[2]).data["position"] == 1
        runner.release()
        for reply in replies:
            read_until(reply, "done")
