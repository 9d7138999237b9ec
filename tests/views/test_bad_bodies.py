"""Bodies that are no good: a 4xx from every route of `serve`'s app that takes one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.serving.app import create_app

MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "/chat_stream": {"user_input": "Hi"},
    "/conversations": {"title": "Holidays"},  # 201
    "/set_generation_params": {"top_p": 0.5},
    "/set_feedback": {"message_id": "none", "is_like": True},  # 404
    "/v1/chat/completions": {"model": "mock", "messages": MESSAGES},
    "/v1/completions": {"model": "mock", "prompt": "Hi"},
    "/v1/responses": {"model": "mock", "input": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72, 105]},
}
NO_BODY = {"/clear_context", "/chat_stream/<message_id>/cancel"}  # they read none
MANY = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "many", "schema": MANY}}
TOOLS = [{"type": "function", "function": {"name": "many", "parameters": MANY}}]


def with_fields(good: bytes, **fields: str) -> bytes:
    """Return an object with fields added whose values are given as JSON, which Python could not write."""
    return good[:-1] + "".join(f', "{name}": {value}' for name, value in fields.items()).encode() + b"}"


def bad_bodies(good: bytes) -> dict[str, bytes]:
    text = good.decode()
    return {
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without a mark": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "a byte that is no UTF-8": with_fields(good, user='"\xff"').replace(b"\xc3\xbf", b"\xff"),
        "a surrogate in UTF-8": with_fields(good, user='"?"').replace(b"?", b"\xed\xa0\x80"),
        "an overlong character": with_fields(good, user='"?"').replace(b"?", b"\xc0\xaf"),
        "a key that is no UTF-8": b'{"\xff": 1, ' + good[1:],
        "310 digits": with_fields(good, temperature="9" * 310),
        "310 digits of a whole number": with_fields(good, seed="9" * 310, max_tokens="9" * 310),
        "5000 digits": with_fields(good, seed="9" * 5000),
        "an exponent": with_fields(good, temperature="1e999"),
        "NaN": with_fields(good, temperature="NaN"),
        "Infinity": with_fields(good, top_p="-Infinity"),
        "deep lists": with_fields(good, stop="[" * 100_000),
        "deep objects": b'{"a": ' * 50_000,
        "nothing": b"",
        "no object": b'["a"]',
        "two objects": good + good,
        "half an object": good[:-1],
    }


SCHEMAS: dict[str, dict[str, Any]] = {  # of chats only
    "a schema of 5000 properties": {"response_format": FORMAT},
    "a tool of 5000 properties": {"tools": TOOLS, "tool_choice": "required"},
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    chat_stream = ChatStream(use_mock_response=True, mock_params={"type": "echo", "time_per_token_sec": 0.0})
    config = {"CHATSTREAM_STORE_DIR": str(tmp_path), "CHATSTREAM_COOKIE_SECURE": False}
    yield create_app(chat_stream, config, exclude=())
    chat_stream.close()


def routes_with_a_body(app: Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        methods = (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
        if rule.rule not in NO_BODY and rule.arguments == set():
            yield from ((rule.rule, method) for method in sorted(methods))


def test_the_good_bodies_are_those_of_all_routes(app: Flask) -> None:
    answers = {
        path: app.test_client().open(path, method=method, json=GOOD.get(path, {})).status_code
        for path, method in routes_with_a_body(app)
        if method == "POST"
    }
    assert {path: answers.pop(path) for path in GOOD} == dict.fromkeys(GOOD, 200) | {
        "/set_feedback": 404,
        "/conversations": 201,
    }
    assert set(answers.values()) <= {404, 405}  # no other route reads a body


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-16", "text/plain"]
)
def test_a_bad_body_is_told_so(app: Flask, content_type: str) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    for path, method in routes_with_a_body(app):
        for name, body in bad_bodies(json.dumps(GOOD.get(path, {"a": 1})).encode()).items():
            response = app.test_client().open(path, method=method, data=body, content_type=content_type)
            assert 400 <= response.status_code < 500, f"{method} {path} with {name}: {response.text}"
            assert response.is_json, f"{method} {path} with {name}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_huge_schema_is_refused_at_once(app: Flask, name: str) -> None:
    began = time.monotonic()
    body = {**GOOD["/v1/chat/completions"], **SCHEMAS[name]}
    response = app.test_client().post("/v1/chat/completions", json=body)
    assert (response.status_code, response.get_json()["error"]["type"]) == (400, "invalid_request_error")
    assert time.monotonic() - began < 5


def test_a_body_where_none_is_read_changes_nothing(app: Flask) -> None:
    for path in ("/clear_context", "/chat_stream/none/cancel"):
        for body in bad_bodies(b'{"a": 1}').values():
            response = app.test_client().post(path, data=body, content_type="application/json")
            assert response.status_code in (200, 404)
