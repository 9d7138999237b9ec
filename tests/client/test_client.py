"""The client side that load tests, benchmark and live tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chatstream_flask.chat.wire_format import ServerSentEvents
from chatstream_flask.client import (
    Event,
    EventReader,
    ServerFailed,
    ServerProcess,
    dechunk,
    free_port,
    parse_events,
    read_events,
    text_of,
    wait_until_open,
)
from chatstream_flask.engine.outcome import FinishReason, Outcome

# -- events ----------------------------------------------------------------------------------------------


def test_events_are_whole_however_the_bytes_come() -> None:
    wire = ServerSentEvents("m1")
    outcome = Outcome(
        finish_reason=FinishReason.STOP,
        prompt_tokens=1,
        completion_tokens=2,
        queue_sec=0.0,
        total_sec=1.0,
    )
    body = wire.start() + wire.heartbeat() + wire.text("\n\nにゃ😀 a: b", 9) + wire.end(outcome, {}, 9)
    whole = parse_events(body)
    assert [event.name for event in whole] == ["start", "text", "done"]
    assert whole[1] == Event("text", {"text": "\n\nにゃ😀 a: b"}, "9")
    assert text_of(whole) == "\n\nにゃ😀 a: b"
    assert list(read_events(body[i : i + 1] for i in range(len(body)))) == whole


def test_half_an_event_is_none() -> None:
    assert EventReader().feed(b'id: 1\nevent: text\ndata: {"text": "a"}\n') == []


def test_events_of_the_openai_api() -> None:
    body = b': heartbeat\n\ndata: {"choices": []}\n\ndata: [DONE]\n\n'
    assert parse_events(body) == [Event("message", {"choices": []})]


# -- HTTP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", (b"abcde", True)),
        (b"3\r\nabc\r\n5\r\nd", (b"abcd", False)),
        (b"3\r\nabc\r\n5", (b"abc", False)),
        (b"", (b"", False)),
    ],
)
def test_chunks(data: bytes, expected: tuple[bytes, bool]) -> None:
    assert dechunk(data) == expected


# -- servers ---------------------------------------------------------------------------------------------


def test_a_server_is_ready_once_it_answers_and_ends_with_its_block(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with ServerProcess(command, port, tmp_path / "log", cwd=tmp_path) as server:
        server.wait_until_ready("/")
        wait_until_open(port, 1.0)
        with pytest.raises(ServerFailed, match="was not ready within 0 s"):
            server.wait_until_ready("/no-such-page", timeout_sec=0)
    assert server.process.poll() is not None
    server.kill()
    with pytest.raises(TimeoutError, match="no server listens"):
        wait_until_open(port, 0)


def test_the_error_of_a_server_that_ends_at_start_shows_its_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    with (
        ServerProcess(command, free_port(), tmp_path / "log") as server,
        pytest.raises(ServerFailed, match="ended with status 1: no model"),
    ):
        server.wait_until_ready()
