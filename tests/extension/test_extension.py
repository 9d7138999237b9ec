"""ChatStream as a Flask extension: several apps, factories, and no reference to apps that are gone."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fakes import TIMEOUT
from flask import Flask, Response, request
from flask_fakes import (
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
from prometheus_client import CollectorRegistry

from chatstream_flask import ChatStream
from chatstream_flask.chat.app_state import state_of
from chatstream_flask.errors import ConfigError, UnsupportedModel
from chatstream_flask.extension import chat_streams_of
from chatstream_flask.serving.app import create_app
from chatstream_flask.settings import Settings
from chatstream_flask.views import create_chat_blueprint

ECHO = {"type": "echo", "time_per_token_sec": 0}


@pytest.fixture
def chat_stream() -> Iterator[ChatStream]:
    chat_stream = ChatStream(use_mock_response=True, mock_params=ECHO)
    yield chat_stream
    chat_stream.engine.drain(TIMEOUT)
    chat_stream.engine.check_idle()
    chat_stream.close()


def factory(chat_stream: ChatStream, directory: Path, name: str = "host") -> Flask:
    app = Flask(name)
    app.config.update(CHATSTREAM_STORE_DIR=str(directory / name), CHATSTREAM_COOKIE_SECURE=False)
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream))
    return app


def test_fifteen_lines_are_an_app(tmp_path: Path) -> None:
    app = Flask("host", instance_path=str(tmp_path))
    chat_stream = ChatStream(use_mock_response=True, mock_params=ECHO, app=app)

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    try:
        assert app.test_client().post("/chat_stream", json={"user_input": "Hello!"}).text == "Hello!"
    finally:
        chat_stream.close()


def test_one_app_has_one_chat_stream(tmp_path: Path, chat_stream: ChatStream) -> None:
    app = factory(chat_stream, tmp_path)
    state = state_of(app, chat_stream)
    for again in (chat_stream, ChatStream(use_mock_response=True)):
        with pytest.raises(RuntimeError, match="already has a ChatStream"):
            again.init_app(app)
    assert chat_streams_of(app) == [chat_stream]
    assert state_of(app, chat_stream) is state


def test_two_apps_share_the_engine_and_nothing_else(tmp_path: Path, chat_stream: ChatStream) -> None:
    one, two = (factory(chat_stream, tmp_path, name) for name in ("one", "two"))
    assert chat_streams_of(one) == chat_streams_of(two) == [chat_stream]
    assert chat_stream.store(one) is not chat_stream.store(two)
    states = [state_of(app, chat_stream) for app in (one, two)]
    assert states[0] is not None and states[1] is not None
    assert states[0].replies is not states[1].replies
    client = one.test_client()
    assert talk(client, "hi") == "hi"
    cookie = client.get_cookie(cookie_name(client))
    assert cookie is not None
    other = two.test_client()
    other.set_cookie(cookie_name(other), cookie.value)  # means nothing there
    assert say(other, regenerate=True).status_code == 400
    assert talk(client, regenerate=True) == "hi"


def test_settings_are_each_apps_own(tmp_path: Path, chat_stream: ChatStream) -> None:
    one = factory(chat_stream, tmp_path, "one")
    two = Flask("two")
    two.config.update(CHATSTREAM_STORE_DIR=str(tmp_path), CHATSTREAM_MAX_INPUT_LEN=3)
    chat_stream.init_app(two)
    two.register_blueprint(create_chat_blueprint(chat_stream))
    assert say(two.test_client(), "four").status_code == 400
    assert talk(one.test_client(), "four") == "four"
    for app in (one, two):
        for field in fields(Settings):
            assert f"CHATSTREAM_{field.name.upper()}" in app.config


@pytest.mark.parametrize(("key", "first", "other"), [("HUNG_AFTER_SEC", 10, 20), ("LOCALE", "en", "ja")])
def test_apps_agree_on_what_they_share(
    tmp_path: Path, chat_stream: ChatStream, key: str, first: object, other: object
) -> None:
    apps = [Flask(name) for name in ("one", "two", "three")]
    for app, value in zip(apps, (first, other, first), strict=True):
        app.config.update({"CHATSTREAM_STORE_DIR": str(tmp_path), f"CHATSTREAM_{key}": value})
    chat_stream.init_app(apps[0])
    with pytest.raises(
        ConfigError, match=f"CHATSTREAM_{key} is {other!r} in 'two', but {first!r} in the fir"
    ):
        chat_stream.init_app(apps[1])
    assert chat_streams_of(apps[1]) == []
    chat_stream.init_app(apps[2])


def test_a_second_language_of_a_process_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("test_a_second_language")
    for name, locale in (("one", "en"), ("two", "ja"), ("three", "ja"), ("four", "en")):
        app = Flask(name)
        app.config.update(CHATSTREAM_STORE_DIR=str(tmp_path), CHATSTREAM_LOCALE=locale)
        ChatStream(use_mock_response=True, logger=logger, app=app)
    assert [record.args for record in caplog.records] == [("ja", "en"), ("en", "ja")]


def test_no_app_is_kept(tmp_path: Path, chat_stream: ChatStream) -> None:
    app = factory(chat_stream, tmp_path)
    talk(app.test_client(), "hi")
    chat_stream.engine.drain(TIMEOUT)
    assert not any(isinstance(value, Flask) for value in vars(chat_stream).values())
    seen = weakref.ref(app)
    chat_stream.close()
    del app
    gc.collect()
    assert seen() is None


def test_an_app_that_was_not_set_up(chat_stream: ChatStream) -> None:
    app = Flask("other")
    app.post("/chat_stream")(lambda: chat_stream.handle_chat_stream_request(request))
    app.testing = True
    with pytest.raises(RuntimeError, match=r"was not set up for 'other'; call init_app\(app\)"):
        app.test_client().post("/chat_stream", json={"user_input": "hi"})


def test_it_starts_at_the_first_request_and_starting_twice_is_harmless(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        engine = chat.chat_stream.engine
        say(chat.client(), "")
        assert not engine.is_started
        talk(chat.client(), "hi")
        workers = engine.workers
        chat.chat_stream.start_queue_worker()
        chat.chat_stream.start_queue_worker()
        assert engine.workers == workers


def test_close_ends_the_threads_and_refuses_until_it_is_started_again(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client = chat.client()
        talk(client, "hi")
        chat.chat_stream.close()
        chat.chat_stream.close()
        assert not chat.chat_stream.engine.is_started
        assert say(client, "hi").status_code == 503
        chat.chat_stream.start_queue_worker()
        assert talk(client, "hi") == "ok"


def test_close_before_the_first_request_leaves_nothing_that_starts_by_itself(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        chat.chat_stream.close()
        assert say(chat.client(), "hi").status_code == 503
        assert not chat.chat_stream.engine.is_started


def test_what_it_tells_of_its_load(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(is_held=True), num_of_concurrent_executions=1) as chat:
        assert (chat.chat_stream.num_running, chat.chat_stream.num_waiting) == (0, 0)
        running = say(chat.client(), "hi")
        read_until(read_events(running), "start")
        waiting = say(chat.client(), "hi")
        assert (chat.chat_stream.num_running, chat.chat_stream.num_waiting) == (1, 1)
        registry = CollectorRegistry()
        registry.register(chat.chat_stream.metrics_collector())
        assert registry.get_sample_value("chatstream_num_requests_running") == 1
        running.close()
        waiting.close()


def test_a_model_that_cannot_be_served_is_told_at_the_first_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Refused:
        context_len = 1024

        def make_runner(self, num_slots: int, num_threads: int, device: int) -> Any:
            raise UnsupportedModel("no causal language model")

        fit = None

    chat = make_chat(tmp_path)
    chat.chat_stream.source = Refused()  # type: ignore[assignment]
    chat.chat_stream.init_app(chat.app)
    chat.app.post("/chat_stream")(lambda: chat.chat_stream.handle_chat_stream_request(request))
    with stopping(chat):
        response = say(chat.client(), "hi")
        assert response.status_code == 500
        assert response.get_json()["error"] == "unsupported_model"
        with pytest.raises(UnsupportedModel):
            chat.chat_stream.start_queue_worker()
    assert "no causal language model" in caplog.text


def test_errors_are_answered_in_every_view_that_uses_it(tmp_path: Path, chat_stream: ChatStream) -> None:
    app = factory(chat_stream, tmp_path)

    @app.get("/history")
    def history() -> list[str | None]:
        return [content.message for content in chat_stream.get_chat_prompt(request).get_contents()]

    client = app.test_client()
    talk(client, "hi")
    assert client.get("/history").get_json() == ["hi", "hi"]
    for file in (tmp_path / "host").iterdir():
        file.write_bytes(file.read_bytes().replace(b'"v":1', b'"v":9'))
    response = client.get("/history")
    assert (response.status_code, response.content_type) == (503, "application/problem+json")
    assert "format 9" in response.get_json()["detail"]


def test_the_served_app_has_the_page_and_the_api(
    tmp_path: Path, chat_stream: ChatStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(chat_stream, {"CHATSTREAM_COOKIE_SECURE": False})
    client = app.test_client()
    assert "chatstream_ui/" in client.get("/").text
    assert talk(client, "hi") == "hi"
    assert (tmp_path / "instance" / "chatstream").is_dir()
    assert client.post("/clear_context").get_json()["success"] is True


WITHOUT_TORCH = """
import sys
from flask import Flask, request
from chatstream_flask import ChatStream
app = Flask("host")
app.config["CHATSTREAM_STORE_DIR"] = sys.argv[1]
app.config["CHATSTREAM_COOKIE_SECURE"] = False
chat_stream = ChatStream(use_mock_response=True, mock_params={"time_per_token_sec": 0}, app=app)
app.post("/chat_stream")(lambda: chat_stream.handle_chat_stream_request(request))
print(app.test_client().post("/chat_stream", json={"user_input": "hi"}).text)
chat_stream.close()
print([name for name in ("torch", "transformers", "tokenizers", "numpy") if name in sys.modules])
"""


def test_the_mock_needs_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["1. Hello! This is a mock reply, so no model was asked.", "[]"]
    assert done.stderr == ""


@pytest.mark.parametrize(("configured", "expected"), [(0.9, 0.9), (None, 0.2)])
def test_the_apps_config_may_set_the_priority_of_prompts(
    tmp_path: Path, configured: float | None, expected: float
) -> None:
    app = Flask("host", instance_path=str(tmp_path))
    app.config["CHATSTREAM_PREFILL_PRIORITY"] = configured
    chat_stream = ChatStream(use_mock_response=True, prefill_priority=0.2, app=app)
    assert chat_stream.engine.config.prefill_priority == expected
