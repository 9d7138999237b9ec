"""Settings that come after the ChatStream which needed them, and callbacks: wrong ones are told."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cachelib import FileSystemCache
from fakes import TIMEOUT
from flask import Flask, Request, Response, request
from flask_session import Session

from chatstream_flask import ChatStream

SECRET = "0123456789abcdef0123456789abcdef"


def app_in(folder: Path) -> Flask:
    app = Flask("host")
    app.config.update(CHATSTREAM_STORE_DIR=str(folder), CHATSTREAM_COOKIE_SECURE=False)
    return app


def make_chat(app: Flask) -> ChatStream:
    mock_params = {"type": "echo", "time_per_token_sec": 0}
    chat_stream = ChatStream(use_mock_response=True, mock_params=mock_params, app=app)
    app.post("/chat_stream")(lambda: chat_stream.handle_chat_stream_request(request))
    return chat_stream


def ask_twice(app: Flask, chat_stream: ChatStream) -> None:
    try:
        client = app.test_client()
        for _ in range(2):
            assert client.post("/chat_stream", json={"user_input": "hi"}).text == "hi"
    finally:
        chat_stream.close()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "after init_app" in record.getMessage()]


def test_a_secret_key_that_comes_too_late_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_in(tmp_path)
    chat_stream = make_chat(app)
    app.secret_key = SECRET
    ask_twice(app, chat_stream)
    (told,) = warnings_in(caplog)
    assert "SECRET_KEY of 'host' was set after init_app" in told


def test_sessions_that_come_too_late_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = app_in(tmp_path / "store")
    chat_stream = make_chat(app)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(tmp_path / "sessions")))
    Session(app)  # type: ignore[no-untyped-call]
    ask_twice(app, chat_stream)
    (told,) = warnings_in(caplog)
    assert "call Session(app), or set session_interface, before ChatStream(app=app)" in told


def test_the_right_order_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = app_in(tmp_path)
    app.secret_key = SECRET
    ask_twice(app, make_chat(app))
    assert warnings_in(caplog) == []


def test_a_callback_that_cannot_be_called_so_is_told_before_anything_is_generated(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    chat_stream = make_chat(app)

    @app.post("/wrong")
    def wrong() -> Response:
        return chat_stream.handle_chat_stream_request(request, callback=lambda: None)  # type: ignore[misc, arg-type]

    answer = app.test_client().post("/wrong", json={"user_input": "hi"})
    assert answer.status_code == 500
    assert "callback must be a function that can be called as callback(request, message)" in answer.text
    assert not chat_stream.engine.is_started


def test_the_ancestors_callback_sample_gets_the_prompt(tmp_path: Path) -> None:
    """`get_chat_prompt(request).create_prompt()`, with a prompt class that needs a tokenizer."""
    app = app_in(tmp_path)
    chat_stream = make_chat(app)
    told: list[str] = []
    is_told = threading.Event()

    def callback(request: Request, message: str) -> None:
        told.extend([message, chat_stream.get_chat_prompt(request).create_prompt()])
        is_told.set()

    app.post("/told", endpoint="told")(
        lambda: chat_stream.handle_chat_stream_request(request, callback=callback)
    )
    try:
        assert app.test_client().post("/told", json={"user_input": "hi"}).text == "hi"
        assert is_told.wait(TIMEOUT)
    finally:
        chat_stream.close()
    assert told == ["success", "user: hi\nassistant: hi"]
