"""Clients that disconnect, read slowly or never finish their request, and the effect on others."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chatstream_flask.client import text_of

from .client import EVENTS, TEXT, SocketChat, Visitor, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server

Leave = Callable[[SocketChat], None]

BEFORE = "client_disconnected_before_streaming"
WHILE = "client_disconnected_while_streaming"
MAX_LATENCY_SEC = 2.0  # catches a hang; usually 0.1 s while waiting, one token while streaming
MAX_LATE_TOKENS = 4  # usually 1

numbers = itertools.count(1)

ways = pytest.mark.parametrize("leave", [SocketChat.close, SocketChat.reset, SocketChat.half_close])
formats = pytest.mark.parametrize("accept", [EVENTS, TEXT])


def new_name() -> str:
    return f"client-{next(numbers)}"


def is_started(chat: SocketChat) -> bool:
    return chat.num_words > 0


@contextmanager
def both_slots_taken(server: Server) -> Iterator[list[SocketChat]]:
    server.check_idle()
    with SocketChat(server.port) as first, SocketChat(server.port) as second:
        yield [chat.read_until(is_started) for chat in (first, second)]


def left(server: Server, chat: SocketChat, name: str, leave: Leave) -> dict[str, object]:
    """Let a client disconnect now; return its outcome, the only one, which must come in time."""
    at = time.monotonic()
    leave(chat)
    outcome = server.outcome(name)
    print(f"noticed after {1000 * (outcome['at'] - at):.0f} ms")
    assert outcome["at"] - at < MAX_LATENCY_SEC
    return outcome


@ways
@formats
def test_leaving_while_queued(long_server: Server, leave: Leave, accept: str) -> None:
    name = new_name()
    with (
        both_slots_taken(long_server) as others,
        SocketChat(long_server.port, accept=accept, name=name) as chat,
    ):
        wait_until(lambda: long_server.has(running=2, waiting=1))
        assert left(long_server, chat, name, leave)["message"] == BEFORE
        wait_until(lambda: long_server.has(running=2, waiting=0, accepted=2), MAX_LATENCY_SEC)
        for other in others:  # they held both slots all the time, so the other client never had one
            other.read_what_is_there()
            assert "done" not in [event.name for event in other.events]
    long_server.check_idle()
    assert len(long_server.outcomes(name)) == 1


@ways
@formats
def test_leaving_before_the_first_text(silent_server: Server, leave: Leave, accept: str) -> None:
    name = new_name()
    with SocketChat(silent_server.port, accept=accept, name=name) as chat:
        wait_until(lambda: silent_server.has(running=1, held=1))
        outcome = left(silent_server, chat, name, leave)
    assert (outcome["message"], outcome["reply"]) == (BEFORE, None)
    silent_server.check_idle()
    assert len(silent_server.outcomes(name)) == 1


@ways
@formats
def test_leaving_while_streaming(long_server: Server, leave: Leave, accept: str) -> None:
    name = new_name()
    with SocketChat(long_server.port, accept=accept, name=name) as chat:
        chat.read_until(lambda chat: chat.num_words >= 3)
        chat.read_what_is_there()
        outcome = left(long_server, chat, name, leave)
    num_late = len(str(outcome["reply"]).split()) - chat.num_words
    print(f"{num_late} tokens after it left")
    assert (outcome["message"], outcome["is_interrupted"]) == (WHILE, True)
    assert 0 <= num_late <= MAX_LATE_TOKENS
    long_server.check_idle()
    assert len(long_server.outcomes(name)) == 1


def test_those_behind_a_leaver_move_up(long_server: Server) -> None:
    with both_slots_taken(long_server), ExitStack() as stack:
        queued = []
        for position in range(1, 6):
            queued.append(stack.enter_context(SocketChat(long_server.port)))
            queued[-1].read_until(lambda chat, p=position: places(chat) == [p])  # type: ignore[misc]
        with SocketChat(long_server.port) as eighth:
            assert eighth.read_to_end().status == 429
        queued[1].close()
        for position, chat in enumerate(queued[2:], 3):
            chat.read_until(lambda chat, p=position: places(chat) == [p, p - 1])  # type: ignore[misc]
        last = stack.enter_context(SocketChat(long_server.port))
        last.read_until(lambda chat: places(chat) == [5])
    long_server.check_idle()


def test_a_freed_slot_goes_to_the_one_in_front(long_server: Server) -> None:
    with both_slots_taken(long_server) as running, SocketChat(long_server.port) as queued:
        queued.read_until(lambda chat: places(chat) == [1])
        running[0].reset()
        queued.read_until(is_started)
        assert [event.name for event in queued.events][:3] == ["queue", "start", "text"]
    long_server.check_idle()


def places(chat: SocketChat) -> list[int]:
    return [event.data["position"] for event in chat.events if event.name == "queue"]


@pytest.fixture(scope="module")
def echo_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock that echoes at once, even megabytes."""
    folder: Path = tmp_path_factory.mktemp(f"{kind}-echo")
    echo = {"type": "echo", "time_per_token_sec": 0.0}
    config = {"CHATSTREAM_MAX_INPUT_LEN": 10_000_000, "CHATSTREAM_MAX_BODY_LEN": 10_000_000}
    with start_mock(kind, folder, echo, config=config, context_len=10_000_000) as server:
        yield server


@formats
def test_a_slow_reader_stops_nobody_and_holds_no_slot(echo_server: Server, accept: str) -> None:
    words = ["x" * 100_000] * 50  # more than socket buffers can hold
    name = new_name()
    with SocketChat(echo_server.port, " ".join(words), accept=accept, name=name, receive_buffer=4096) as slow:
        slow.read()
        with Visitor(echo_server.port) as visitor:
            assert [visitor.ask(text) for text in ("one", "two", "three")] == ["one", "two", "three"]
        assert echo_server.outcome(name)["message"] == "success"
        echo_server.check_idle()
        slow.read_to_end()
        reply = text_of(slow.events) if accept == EVENTS else slow.body.decode()
        assert slow.is_complete
        assert reply.split() == words


def test_bodies_that_never_come_stop_nobody_and_take_no_place(echo_server: Server) -> None:
    name = new_name()
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(SocketChat(echo_server.port, name=name, is_body_sent=False))
        with Visitor(echo_server.port) as visitor:
            assert [visitor.ask(text) for text in ("one", "two", "three")] == ["one", "two", "three"]
        assert echo_server.has(accepted=0)
    echo_server.check_idle()
    assert echo_server.outcomes(name) == []
