"""Access log: one line per request, request ids, and no conversation text unless it is enabled."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_fakes import FAIL, Chat, ScriptedRunner, running_chat, say

from chatstream_flask import ChatStream
from chatstream_flask.engine.engine import Engine
from chatstream_flask.monitoring.japanese import MESSAGES
from chatstream_flask.monitoring.log_format import HUMAN, HumanFormatter, JsonFormatter
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.views import create_chat_blueprint, create_operations_blueprint

ROOT = Path(__file__).parents[2] / "chatstream_flask"


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chatstream_flask")


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "chatstream_flask.access"]


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["chatstream"] for record in lines(caplog)]


@contextmanager
def running_openai(tmp_path: Path) -> Iterator[tuple[FlaskClient, Engine]]:
    app = Flask("host", instance_path=str(tmp_path))
    chat_stream = ChatStream(use_mock_response=True, mock_params={"time_per_token_sec": 0}, app=app)
    app.register_blueprint(create_openai_blueprint(chat_stream))
    try:
        yield app.test_client(), chat_stream.engine
    finally:
        chat_stream.close()


def talk(chat: Chat, text: str = "hi", **headers: str) -> None:
    """Check that the line is written before the callback is called."""
    chat.client().post("/chat_stream", json={"user_input": text}, headers=headers).get_data()
    chat.word()


def test_line_of_a_reply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path) as chat:
        talk(chat, "my secret", **{"X-Request-Id": "req-1"})
    (line,) = fields(caplog)
    session, times = line.pop("session"), [line.pop(n) for n in list(line) if n.endswith(("_ms", "_second"))]
    assert line == {
        "event": "request",
        "request_id": "req-1",
        "method": "POST",
        "route": "/chat_stream",
        "finish_reason": "stop",
        "error": None,
        "prompt_tokens": len("U:my secret|A:"),
        "cached_tokens": 0,
        "completion_tokens": 3,
        "num_dropped_turns": 0,
    }
    assert len(session) == 16 and len(times) == 4
    message = lines(caplog)[0].getMessage()
    assert message.startswith(
        f"POST /chat_stream req-1 session {session} ended: stop, 14 + 3 tokens, queued "
    )
    assert "secret" not in repr(caplog.records) + caplog.text


def test_lines_of_one_conversation_have_one_hash_which_is_not_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_chat(tmp_path) as chat:
        for client in (first := chat.client(), first, chat.client()):
            say(client, "hi").get_data()
            chat.word()
    one, same, other = [line["session"] for line in fields(caplog)]
    assert one == same != other


def test_prompts_where_they_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path, config={"CHATSTREAM_LOG_PROMPTS": True}) as chat:
        talk(chat, "a\nb")
    (line,) = fields(caplog)
    assert (line["user_input"], line["reply"]) == ("a\nb", "ok")
    assert lines(caplog)[0].getMessage().endswith(r" user_input='a\nb' reply='ok'")


def test_truncated_turns_and_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path, context_len=40, max_new_tokens=10) as chat:
        client = chat.client()
        for text in ("one two three", "four five six"):
            say(client, text).get_data()
            chat.word()
        chat.runner.reply = lambda prompt: FAIL
        say(chat.client(), "x").get_data()
        chat.word()
    assert [line["num_dropped_turns"] for line in fields(caplog)] == [0, 1, 0]
    assert fields(caplog)[2]["error"] == "generation failed"
    assert lines(caplog)[1].getMessage().endswith(", 1 turns left out")
    assert lines(caplog)[2].getMessage().endswith(" error='generation failed'")


def test_line_of_a_refusal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path) as chat:
        response = chat.client().post("/chat_stream", json={}, headers={"X-Request-Id": "r/2"})
    assert (response.status_code, response.headers["X-Request-Id"]) == (400, "r/2")
    (line,) = lines(caplog)
    assert line.getMessage() == "POST /chat_stream r/2 refused: 400 bad_request: user_input is missing"
    assert line.levelno == logging.INFO


def test_full_server_told_as_200_is_a_refusal_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, num_of_concurrent_executions=1, max_queue_size=0) as chat:
        running = say(chat.client(), "hi")
        say(chat.client(), "hi")
        (line,) = fields(caplog)
        assert (line["status"], line["code"]) == (200, "too_many_requests")
        running.close()
        chat.word()


def test_json_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path, config={"CHATSTREAM_LOG_FORMAT": "json"}) as chat:
        talk(chat)
    (record,) = lines(caplog)
    assert json.loads(record.getMessage()) == fields(caplog)[0]
    line = json.loads(JsonFormatter().format(record))
    assert line == {**fields(caplog)[0], **{name: line[name] for name in ("time", "level", "logger")}}
    assert (line["level"], line["logger"]) == ("INFO", "chatstream_flask.access")


def test_json_of_other_lines() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, "", 0, "a %s", ("b",), (ValueError, ValueError("no"), None)
        )
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["exception"], line["level"]) == ("a b", "ValueError: no", "ERROR")


HOSTILE = "a\r\n2026-11-29 ERROR forged \x1b[2J\x9b31m\u2028\u202e\ud800 end"


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_a_client_can_neither_forge_a_line_nor_control_a_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log_format: str
) -> None:
    with running_chat(tmp_path, config={"CHATSTREAM_LOG_FORMAT": log_format}) as chat:
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        path = "/v1/forged \x1b[2J\x9b31m\u2028\u202e".encode().decode("latin-1")
        chat.client().get(environ_overrides={"PATH_INFO": path})
        chat.client().post("/v1/completions", json={"model": HOSTILE.replace("\ud800", ""), "prompt": ""})
        chat.client().post("/chat_stream", json={HOSTILE: 1, "user_input": "hi"})
    assert len(lines(caplog)) == 3
    assert sum("forged" in record.getMessage() for record in lines(caplog)) == 2  # the third cuts it
    for record in lines(caplog):
        assert record.getMessage().isprintable()
        assert formatter_of(log_format).format(record).isprintable()


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_lines_of_a_traceback_cannot_pass_for_records(log_format: str) -> None:
    error = ValueError(HOSTILE)
    record = logging.getLogger("x").makeRecord(
        "x", logging.ERROR, "", 0, "a %s", (HOSTILE,), (ValueError, error, None)
    )
    first, *others = formatter_of(log_format).format(record).encode().decode().split("\n")
    assert first.isprintable() and all(line.isprintable() and line.startswith("    ") for line in others)
    assert (log_format == "json") == (not others)


def formatter_of(log_format: str) -> logging.Formatter:
    return JsonFormatter() if log_format == "json" else HumanFormatter(HUMAN)


def test_japanese_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path, config={"CHATSTREAM_LOCALE": "ja"}) as chat:
        talk(chat)
        chat.client().post("/chat_stream", json={})
        logging.getLogger("chatstream_flask").error("a request failed: %s", "x")
    ended, refused = [line.getMessage() for line in lines(caplog)]
    assert " 終了: stop、トークン 7 + 3、" in ended
    assert " 拒否: 400 bad_request: " in refused
    assert "リクエストが失敗しました: x" in caplog.text
    with running_chat(tmp_path):  # the app that was set up last decides
        logging.getLogger("chatstream_flask").error("a request failed: %s", "x")
    assert "a request failed: x" in caplog.text


def test_every_message_is_there_in_japanese() -> None:
    """Check that japanese.py translates exactly the log messages of the package."""
    said = {
        call.args[0].value
        for path in ROOT.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.args
        and call.func.attr in ("info", "warning", "error", "exception", "critical")
        and "logger" in ast.unparse(call.func.value)
        and isinstance(call.args[0], ast.Constant)
    }
    assert said == set(MESSAGES)
    for english, japanese in MESSAGES.items():
        assert english.count("%") == japanese.count("%")


def test_a_message_in_japanese_takes_the_same_arguments() -> None:
    for english, japanese in MESSAGES.items():
        kinds = [part[:1] if part[:1] != "." else "f" for part in english.split("%")[1:]]
        assert kinds == [part[:1] if part[:1] != "." else "f" for part in japanese.split("%")[1:]]


def test_openai_requests_and_their_refusals_have_lines_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_openai(tmp_path) as (client, engine):
        body = {"model": "none", "messages": [{"role": "user", "content": "hi"}]}
        refused = client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "r1"})
        assert refused.headers["X-Request-Id"] == "r1"
        body["model"] = client.get("/v1/models").get_json()["data"][0]["id"]
        assert (
            client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "r2"}).status_code == 200
        )
        engine.stop()  # afterwards all ended replies have been logged
    first, second = fields(caplog)
    assert (first["event"], first["request_id"], first["status"]) == ("refusal", "r1", 404)
    assert (second["event"], second["request_id"], second["session"]) == ("request", "r2", None)
    assert second["route"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [("abc-1_2.3~4:5/6+7=8@x", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)],
)
def test_request_id_is_taken_when_sane_and_always_given(tmp_path: Path, given: str, is_taken: bool) -> None:
    with running_chat(tmp_path) as chat:
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/api")
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        chat.app.add_url_rule("/other", view_func=lambda: "of the host")
        client = chat.client()
        for path in ("/api/get_load", "/metrics", "/health/live", "/api/chat_stream/none"):
            response = client.get(path, headers={"X-Request-Id": given})
            assert (response.headers["X-Request-Id"] == given) == is_taken
            assert response.headers["X-Request-Id"]
        assert "X-Request-Id" not in client.get("/other", headers={"X-Request-Id": "x"}).headers
        reply = client.post("/chat_stream", json={"user_input": "hi"}, headers={"X-Request-Id": given})
        assert (reply.headers["X-Request-Id"] == given) == is_taken
        reply.get_data()
