"""Shutdown of a server: what running, waiting and new requests get."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from .client import EVENTS, TIMEOUT_SEC, SocketChat, Visitor, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server

NAMES = ("one", "two", "three")


@contextmanager
def three_chats(
    kind: str, folder: Path, drain_sec: float, **options: Any
) -> Iterator[tuple[Server, list[SocketChat]]]:
    """Start three chats: two run and one waits."""
    mock = {"type": "long", "time_per_token_sec": 0.03}
    config = {"CHATSTREAM_DRAIN_SEC": drain_sec}
    with start_mock(kind, folder, mock, config=config, **options) as server, ExitStack() as stack:
        chats = []
        for name in NAMES:
            chats.append(stack.enter_context(SocketChat(server.port, name=name)))
            chats[-1].read_until(lambda chat: bool(chat.events))
        wait_until(lambda: server.has(running=2, waiting=1))
        yield server, chats


def is_draining(server: Server) -> bool:
    with Visitor(server.port) as visitor, visitor.post("Hello!", accept=EVENTS) as response:
        return response.status_code == 503


def ends(server: Server, chats: list[SocketChat]) -> tuple[list[str], list[str]]:
    """Return why the replies ended, as sent to the clients and to the callback; all bodies are complete."""
    for chat in chats:
        assert chat.read_to_end().is_complete
        assert chat.events[-1].name == "done"
        chat.close()
    assert server.wait() == 0
    assert "Traceback" not in server.output
    reasons = [chat.events[-1].data["finish_reason"] for chat in chats]
    return reasons, [server.outcome(name)["message"] for name in NAMES]


def test_accepted_replies_finish_and_new_requests_get_503(kind: str, tmp_path: Path) -> None:
    with three_chats(kind, tmp_path, 60.0, max_new_tokens=40) as (server, chats):
        server.process.terminate()
        wait_until(lambda: is_draining(server))
        with Visitor(server.port) as visitor, visitor.post("Hello!") as response:
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "5"
            assert response.json()["detail"] == "the server is stopping and takes no new requests"
        ready = requests.get(f"http://127.0.0.1:{server.port}/health/ready", timeout=TIMEOUT_SEC)
        assert ready.status_code == 503
        assert ends(server, chats) == (["length"] * 3, ["success"] * 3)


def test_after_the_deadline_replies_end_and_say_so(kind: str, tmp_path: Path) -> None:
    with three_chats(kind, tmp_path, 0.5) as (server, chats):
        server.process.terminate()
        assert ends(server, chats) == (["shutdown"] * 3, ["unknown_error_occurred"] * 3)
        kept = [server.outcome(name) for name in NAMES]
    assert [outcome["is_interrupted"] for outcome in kept] == [True, True, False]  # the third never started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_is_at_once(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    with three_chats(kind, tmp_path, 3600.0) as (server, chats):
        server.process.terminate()
        wait_until(lambda: is_draining(server))
        server.process.send_signal(number)
        assert ends(server, chats)[0] == ["shutdown"] * 3


def test_a_slow_reader_gets_the_rest(kind: str, tmp_path: Path) -> None:
    """The reply has ended, but most of it is not yet sent."""
    words = ["x" * 100_000] * 50
    echo = {"type": "echo", "time_per_token_sec": 0.0}
    config = {"CHATSTREAM_MAX_INPUT_LEN": 10_000_000, "CHATSTREAM_MAX_BODY_LEN": 10_000_000}
    with (
        start_mock(kind, tmp_path, echo, config=config, context_len=10_000_000) as server,
        SocketChat(server.port, " ".join(words), name="slow", receive_buffer=4096) as slow,
    ):
        slow.read()
        assert server.outcome("slow")["message"] == "success"
        server.process.terminate()
        assert slow.read_to_end().is_complete
        assert slow.events[-1].name == "done"
        assert server.wait() == 0
