"""Writing to a client that reads late, little or never: the writer does not wait for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from chatstream_flask.serving import client_socket
from chatstream_flask.serving.client_socket import ClientSocket

DATA = b"0123456789" * 500_000  # more than the buffers between two sockets take
TIMEOUT_SEC = 10.0


class Pair:
    """Both ends of a connection."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(TIMEOUT_SEC)
        self.num_pending_calls = 0
        self.ours = ClientSocket(ours, self._on_pending, TIMEOUT_SEC)

    def _on_pending(self) -> None:
        self.num_pending_calls += 1

    def close(self) -> None:
        self.ours.sock.close()
        self.theirs.close()

    def receive_while_flushing(self, num_bytes: int) -> bytes:
        data = b""
        while len(data) < num_bytes:
            self.ours.flush()
            data += self.theirs.recv(1_000_000)
        return data


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_what_the_network_does_not_take_is_sent_later_and_in_order(pair: Pair) -> None:
    pair.ours.sendall(b"first ")
    assert not pair.ours.has_pending and pair.theirs.recv(100) == b"first "
    pair.ours.sendall(DATA)
    pair.ours.sendall(b" last")
    assert pair.ours.has_pending and pair.num_pending_calls == 1
    assert pair.receive_while_flushing(len(DATA) + 5) == DATA + b" last"
    assert not pair.ours.has_pending
    pair.ours.sendall(DATA)
    assert pair.num_pending_calls == 2


def test_a_writer_waits_when_too_much_is_pending(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "MAX_PENDING", 1_000_000)
    thread = threading.Thread(target=pair.ours.sendall, args=[DATA], name="chatstream-test-writer")
    thread.start()
    received = pair.receive_while_flushing(len(DATA) - 900_000)
    thread.join(TIMEOUT_SEC)
    assert not thread.is_alive()
    assert received + pair.receive_while_flushing(len(DATA) - len(received)) == DATA


def test_a_writer_does_not_wait_for_ever(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "MAX_PENDING", 1_000_000)
    pair.ours.settimeout(0.01)
    with pytest.raises(BrokenPipeError, match="the client is gone or does not read"):
        pair.ours.sendall(DATA)
    with pytest.raises(BrokenPipeError):
        pair.ours.sendall(b"more")
    assert not pair.ours.has_pending


def test_a_client_that_has_gone_is_told_to_the_writer(pair: Pair) -> None:
    pair.ours.sendall(DATA)
    pair.theirs.close()
    with pytest.raises(OSError):
        while pair.ours.has_pending:
            pair.ours.flush()
    with pytest.raises(BrokenPipeError):
        pair.ours.sendall(b"more")


def test_reading_waits_for_a_while(pair: Pair) -> None:
    pair.ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        pair.ours.recv(10)
    with pytest.raises(BlockingIOError):
        pair.ours.recv_now(10)
    pair.theirs.sendall(b"hello")
    assert pair.ours.recv(10) == b"hello"
    pair.theirs.shutdown(socket.SHUT_WR)
    assert pair.ours.recv(10) == b""


def test_only_the_main_loop_ends_a_connection(pair: Pair) -> None:
    pair.ours.close()
    with pytest.raises(OSError, match="only the main loop closes this connection"):
        pair.ours.shutdown(socket.SHUT_WR)
    pair.ours.sendall(b"hello")
    assert pair.theirs.recv(10) == b"hello"
