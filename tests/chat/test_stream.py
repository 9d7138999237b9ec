"""The streamed reply as its client sees it, and the number of replies at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes import TIMEOUT, FakeClock, ask
from flask import Flask, Response, request
from flask_fakes import (
    FAIL,
    SSE,
    Chat,
    ScriptedRunner,
    parse_event,
    read_events,
    read_until,
    running_chat,
    say,
    talk,
)

from chatstream_flask import ChatStream
from chatstream_flask.chat.reply_stream import ReplyStream
from chatstream_flask.chat.wire_format import PlainText, ServerSentEvents, choose
from chatstream_flask.config import EngineConfig, WireFormatName
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reply_source import LocalReply
from chatstream_flask.errors import ReplyCancelled
from chatstream_flask.http.streamed_response import BodyCut
from chatstream_flask.mock.phrases import LONG, ROUND


def wait_until(engine: Engine, is_so: Callable[[], bool]) -> None:
    """Woken by the queue itself."""
    with engine._queue._changed:
        assert engine._queue._changed.wait_for(is_so, TIMEOUT), repr(engine)


# -- one reply ---------------------------------------------------------------------------------------


def test_events_of_a_reply(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "東京\nok", is_held=True)
    with running_chat(tmp_path, runner) as chat:
        response = say(chat.client(), "hi")
        events = read_events(response)
        read_until(events, "start")
        text = ""
        for i in range(5):  # ids are the characters that the reader has then got
            runner.allow()
            event = next(events)
            text += event.data["text"]
            assert (event.name, event.id) == ("text", i + 1)
        runner.release()
        (done,) = events
        assert text == "東京\nok"
        assert (done.name, done.id, done.data["finish_reason"]) == ("done", 5, "stop")
        assert done.data["usage"] == {
            "prompt_tokens": 7,
            "cached_tokens": 0,
            "completion_tokens": 6,
            "total_tokens": 13,
        }
        assert set(done.data["timings"]) == {
            "queue_ms",
            "time_to_first_token_ms",
            "total_ms",
            "tokens_per_second",
        }
        assert done.data["num_dropped_turns"] == 0
        assert done.data["message_id"] == response.headers["X-ChatStream-Last-Generated-Message-Id"]
        assert chat.word() == "success"


def test_headers(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        for accept, content_type in (("text/event-stream", "text/event-stream"), ("*/*", "text/plain")):
            response = chat.client().post(
                "/chat_stream", json={"user_input": "hi"}, headers={"Accept": accept}
            )
            assert response.content_type == f"{content_type}; charset=utf-8"
            assert response.headers["X-Accel-Buffering"] == "no"
            assert response.headers["Cache-Control"] == "no-cache, no-store, no-transform"
            assert "Connection" not in response.headers
            assert "Content-Length" not in response.headers
            assert "X-ChatStream-Truncated" not in response.headers
            response.close()


def test_plain_text_is_new_text_only(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: "日本 ok\n")) as chat:
        response = chat.client().post("/chat_stream", json={"user_input": "hi"})
        chunks = list(response.iter_encoded())
        assert b"" not in chunks
        assert b"".join(chunks).decode() == "日本 ok\n"


def test_length_is_told(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: "abcdef")) as chat:
        done = read_until(read_events(say(chat.client(), "hi", max_new_tokens=3)), "done")
        assert (done.id, done.data["finish_reason"]) == (3, "length")
        assert chat.word() == "success"


def test_queued_clients_hear_at_once_and_then_whenever_they_move_up(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    config = {"CHATSTREAM_PROBE_SEC": 0.005}
    with running_chat(tmp_path, runner, config, num_of_concurrent_executions=1, max_queue_size=3) as chat:
        first = read_events(say(chat.client(), "1"))
        read_until(first, "start")
        others = [read_events(say(chat.client(), name)) for name in "234"]
        heads = [next(events) for events in others]  # nothing has run yet
        assert [(head.name, head.data["position"], head.data["eta_s"]) for head in heads] == [
            ("queue", position, None) for position in (1, 2, 3)
        ]
        runner.allow(3)
        assert next(others[2]).data["position"] == 2
        runner.allow(3)
        assert next(others[2]).data["position"] == 1
        assert chat.chat_stream.engine.num_waiting == 1
        runner.release()
        assert [event.name for event in others[2] if event.name != "text"] == ["start", "done"]
        assert [list(events)[-1].name for events in (first, *others[:2])] == ["done"] * 3
        assert runner.prompts == ["U:1|A:", "U:2|A:", "U:3|A:", "U:4|A:"]


def test_heartbeats_while_nothing_happens(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    config = {"CHATSTREAM_HEARTBEAT_SEC": 0.02, "CHATSTREAM_PROBE_SEC": 30}
    with running_chat(tmp_path, runner, config) as chat:
        events = read_events(say(chat.client(), "hi"))
        for _ in range(3):
            read_until(events, "")
        runner.release()
        assert read_until(events, "done").id == 2


def test_an_error_is_told_in_band(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path, ScriptedRunner(lambda prompt: f"par{FAIL}tial")) as chat:
        client = chat.client()
        *texts, error = list(read_events(say(client, "hi")))
        assert "".join(event.data.get("text", "") for event in texts) == "par"
        assert (error.name, error.data) == (
            "error",
            {"code": "generation_failed", "message": "generation failed"},
        )
        assert chat.word() == "unknown_error_occurred"
        with pytest.raises(BodyCut, match="generation failed"):
            _ = client.post("/chat_stream", json={"user_input": "hi"}).data
        assert chat.word() == "unknown_error_occurred"
        assert chat.history(client) == []
    assert "the script says so" in caplog.text


def test_a_reply_that_takes_too_long(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, {"CHATSTREAM_REQUEST_TIMEOUT_SEC": 0.05}) as chat:
        done = read_until(read_events(say(chat.client(), "hi")), "done")
        assert done.data["finish_reason"] == "timeout"
        assert chat.word() == "unknown_error_occurred"


def test_text_that_takes_too_long_is_cut_short(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "text", is_held=True)
    runner.allow(2)
    with running_chat(tmp_path, runner, {"CHATSTREAM_REQUEST_TIMEOUT_SEC": 0.2}) as chat:
        response = chat.client().post("/chat_stream", json={"user_input": "hi"})
        assert response.status_code == 200
        with pytest.raises(BodyCut, match="took too long"):
            _ = response.data
        assert chat.word() == "unknown_error_occurred"


def test_text_that_takes_too_long_to_begin_gets_a_status(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, {"CHATSTREAM_REQUEST_TIMEOUT_SEC": 0.05}) as chat:
        response = chat.client().post("/chat_stream", json={"user_input": "hi"})
        assert response.status_code == 503
        assert response.content_type == "application/problem+json"
        assert response.headers["Retry-After"] == "5"
        assert response.headers.get("Set-Cookie"), "the visitor keeps its conversation"
        assert response.json is not None and response.json["error"] == "timeout"
        assert chat.word() == "unknown_error_occurred"


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain", "application/x-ndjson"])
def test_a_body_whose_client_has_gone_does_not_look_complete(accept: str) -> None:
    """A client that has closed its own direction only may still read."""
    engine = Engine(EngineConfig(max_running=1, max_queue_size=0), lambda thread: ScriptedRunner())
    wire = choose(WireFormatName.AUTO, accept, "m1")
    source = LocalReply(engine, ask("hi"))
    stream = ReplyStream(source, wire, is_gone=lambda: True, probe_sec=0.1, heartbeat_sec=10, extra={})
    with pytest.raises(ReplyCancelled):
        list(stream)


# -- the mock, end to end ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mock_type", "replies"),
    [("round", ROUND[:3]), ("long", (LONG,)), ("echo", ("A b\n c", "日本", "\x1e "))],
)
def test_mock(tmp_path: Path, mock_type: str, replies: tuple[str, ...]) -> None:
    params = {"type": mock_type, "time_per_token_sec": 0}
    chat_stream = ChatStream(
        use_mock_response=True, mock_params=params, max_new_tokens=1000, context_len=2048
    )
    app = Flask("host")
    app.config.update(CHATSTREAM_STORE_DIR=str(tmp_path), CHATSTREAM_COOKIE_SECURE=False)
    chat_stream.init_app(app)
    app.post("/chat_stream")(lambda: chat_stream.handle_chat_stream_request(request))
    try:
        client = app.test_client()
        for reply in replies:
            asked = reply if mock_type == "echo" else "hi"
            if not asked.strip():
                continue
            assert client.post("/chat_stream", json={"user_input": asked}).text == reply
        chat_stream.engine.drain(TIMEOUT)
        chat_stream.engine.check_idle()
    finally:
        chat_stream.engine.stop()


# -- capacity ----------------------------------------------------------------------------------------


def burst(chat: Chat, num_clients: int) -> list[Any]:
    """Return the responses to requests that are sent at the same moment."""
    barrier = threading.Barrier(num_clients)

    def one(i: int) -> Any:
        client = chat.client()
        barrier.wait(TIMEOUT)
        return say(client, str(i))

    with ThreadPoolExecutor(num_clients) as pool:
        return list(pool.map(one, range(num_clients)))


@pytest.mark.parametrize(("running", "waiting"), [(2, 5), (1, 0), (3, 1)])
def test_capacity_is_exact_in_a_burst(tmp_path: Path, running: int, waiting: int) -> None:
    runner = ScriptedRunner(is_held=True)
    limits: dict[str, Any] = {"num_of_concurrent_executions": running, "max_queue_size": waiting}
    with running_chat(tmp_path, runner, **limits) as chat:
        responses = burst(chat, 12)
        accepted = [r for r in responses if r.content_type.startswith("text/event-stream")]
        refused = [r for r in responses if r not in accepted]
        assert len(accepted) == running + waiting
        for response in refused:
            assert response.status_code == 200
            assert response.content_type == "application/json"
            assert response.get_json() == {"error": "too_many_requests"}
            assert "Set-Cookie" not in response.headers
        wait_until(chat.chat_stream.engine, lambda: chat.chat_stream.engine.num_running == running)
        assert chat.chat_stream.engine.num_waiting == waiting
        runner.release()
        assert [list(read_events(r))[-1].name for r in accepted] == ["done"] * len(accepted)
        assert [chat.word() for _ in accepted] == ["success"] * len(accepted)
        assert chat.words.empty()
        assert sorted(runner.prompts) == sorted(f"U:{responses.index(r)}|A:" for r in accepted)


def test_refusal_with_a_status_changes_nothing(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    limits: dict[str, Any] = {"num_of_concurrent_executions": 1, "max_queue_size": 0}
    with running_chat(tmp_path, runner, too_many_request_as_http_error=True, **limits) as chat:
        client = chat.client()
        talk(client, "first")
        runner.is_held = True
        running = read_events(say(chat.client(), "other"))
        for body in ({"user_input": "second"}, {"regenerate": True}):
            response = client.post("/chat_stream", json=body, headers=SSE)
            assert response.status_code == 429
            assert response.content_type == "application/problem+json"
            assert 1 <= int(response.headers["Retry-After"]) <= 59
            assert "all 1 places are taken" in response.get_json()["detail"]
        runner.release()
        read_until(running, "done")
        assert chat.history(client) == ["first", "ok"]
        assert talk(client, "third") == "ok"
        assert runner.prompts[-1] == "U:first|A:ok|U:third|A:"


# -- clients that leave ------------------------------------------------------------------------------


def test_leaving_while_queued(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner, num_of_concurrent_executions=1, max_queue_size=1) as chat:
        first = read_events(say(chat.client(), "1"))
        read_until(first, "start")
        leaver = chat.client()
        response = say(leaver, "2")
        response.close()
        assert chat.word() == "client_disconnected_before_streaming"
        assert chat.chat_stream.engine.num_accepted == 1  # its place is free at once
        last = read_events(say(chat.client(), "3"))
        assert next(last).name == "queue"
        runner.release()
        assert read_until(last, "done")
        assert read_until(first, "done")
        assert runner.prompts == ["U:1|A:", "U:3|A:"]
        assert chat.history(leaver) == []
        assert [chat.word(), chat.word()] == ["success"] * 2
        assert chat.words.empty()


def test_leaving_before_the_first_word(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner) as chat:
        client = chat.client()
        response = say(client, "hi")
        read_until(read_events(response), "start")
        response.close()
        assert chat.word() == "client_disconnected_before_streaming"
        assert chat.history(client) == []
        chat.check_idle()
        assert chat.words.empty()


def test_leaving_while_streaming(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "abcdef", is_held=True)
    with running_chat(tmp_path, runner) as chat:
        client = chat.client()
        response = say(client, "hi")
        events = read_events(response)
        runner.allow(2)
        assert next(event for event in events if event.id == 2).name == "text"
        response.close()
        assert chat.word() == "client_disconnected_while_streaming"
        assert chat.history(client) == ["hi", "ab~"]
        response.close()
        chat.check_idle()
        assert chat.words.empty()
        assert chat.histories == [["hi", "ab~"]]


def test_a_body_that_is_never_read(tmp_path: Path) -> None:
    """HEAD, a middleware, a client that left early: only `close` is called."""
    runner = ScriptedRunner(is_held=True)
    with running_chat(tmp_path, runner) as chat:
        with chat.app.test_request_context("/chat_stream", method="POST", json={"user_input": "hi"}):
            response = chat.chat_stream.handle_chat_stream_request(request, callback=chat.on_end)
        assert chat.chat_stream.engine.num_accepted == 1
        response.close()
        assert chat.word() == "client_disconnected_before_streaming"


def test_the_probe_ends_a_reply_that_writes_nothing(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    asked = threading.Event()
    is_gone = threading.Event()

    def probe() -> bool:
        asked.set()
        return is_gone.is_set()

    with (
        running_chat(tmp_path, runner, {"CHATSTREAM_PROBE_SEC": 0.005}) as chat,
        ThreadPoolExecutor(1) as pool,
    ):
        environ = {"waitress.client_disconnected": probe}
        response = pool.submit(
            chat.client().post, "/chat_stream", json={"user_input": "hi"}, environ_overrides=environ
        )
        assert asked.wait(TIMEOUT)
        assert not response.done()
        is_gone.set()
        assert response.result(TIMEOUT).status_code == 409  # nobody reads it
        assert chat.word() == "client_disconnected_before_streaming"


# -- the callback ------------------------------------------------------------------------------------


def test_the_callback_sees_the_kept_turn(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        client = chat.client()
        for user_input in ("one", "two"):
            talk(client, user_input)
            assert chat.word() == "success"
        assert chat.histories == [["one", "ok"], ["one", "ok", "two", "ok"]]


def test_a_failing_callback_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_chat(tmp_path) as chat:
        called = threading.Event()

        def on_end(request: Any, message: str) -> None:
            called.set()
            raise OSError("no such mail server")

        @chat.app.post("/own")
        def own() -> Response:
            return chat.chat_stream.handle_chat_stream_request(request, callback=on_end)

        client = chat.client()
        for _ in range(2):
            assert client.post("/own", json={"user_input": "hi"}).data == b"ok"
            assert called.wait(TIMEOUT)
            called.clear()
        assert chat.history(client) == ["hi", "ok"] * 2
    assert "no such mail server" in caplog.text


def test_the_callbacks_request_is_the_one_that_was_sent(tmp_path: Path) -> None:
    seen: list[Any] = []
    ended = threading.Event()

    def on_end(request: Any, message: str) -> None:
        seen.extend([request.path, request.get_json(), request.headers["X-User"]])
        ended.set()

    with running_chat(tmp_path) as chat:

        @chat.app.post("/own")
        def own() -> Response:
            return chat.chat_stream.handle_chat_stream_request(request, callback=on_end)

        chat.client().post("/own", json={"user_input": "hi"}, headers={"X-User": "Aki"}).close()
        assert ended.wait(TIMEOUT)
        assert seen == ["/own", {"user_input": "hi"}, "Aki"]


# -- the body by itself, without an app --------------------------------------------------------------


def make_stream(wire: Any, **kwargs: Any) -> tuple[ReplyStream, Any, FakeClock]:
    """Its engine is not started: the test plays the generation thread."""
    engine = Engine(EngineConfig(), lambda index: ScriptedRunner())
    clock = FakeClock()
    generation = ask("hi")
    engine._queue.put(generation, engine.reserve())
    settings: dict[str, Any] = {"is_gone": None, "probe_sec": 0.001, "heartbeat_sec": 5, "extra": {}} | kwargs
    stream = ReplyStream(LocalReply(engine, generation), wire, clock=clock, **settings)
    return stream, generation, clock


def test_a_heartbeat_when_nothing_was_written_for_long() -> None:
    stream, generation, clock = make_stream(ServerSentEvents("m1"))
    assert b"event: queue" in next(stream)
    clock.advance(5)
    assert next(stream) == b": heartbeat\n\n"
    generation.start()
    assert b"event: start" in next(stream)
    clock.advance(4.9)
    generation.add_text("a")
    assert b'"a"' in next(stream)
    clock.advance(5)
    assert next(stream) == b": heartbeat\n\n"


def test_what_came_meanwhile_is_one_chunk() -> None:
    stream, generation, _ = make_stream(PlainText("m1"))
    generation.start()
    for piece in ("a", "b", "c"):
        generation.add_text(piece)
    assert next(stream) == b"abc"
    generation.add_text("d")
    generation.publish(generation.finish(FinishReason.STOP))
    assert list(stream) == [b"d"]
    assert list(stream) == []
    stream.close()
    assert generation.stop_reason is None


def test_start_is_told_with_the_first_text_at_the_latest() -> None:
    stream, generation, _ = make_stream(ServerSentEvents("m1"))
    generation.start()
    generation.add_text("a")
    first = b"".join([next(stream), next(stream)])
    assert [parse_event(b).name for b in first.decode().split("\n\n")[:-1]] == ["start", "text"]


def test_it_shows_its_state() -> None:
    stream, generation, _ = make_stream(PlainText("m1"))
    generation.start()
    generation.add_text("日本")
    next(stream)
    assert repr(stream) == f"<ReplyStream <GenerationRequest {generation.id[:8]} RUNNING tokens=0> offset=2>"
