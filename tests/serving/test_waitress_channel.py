"""waitress' threads do not wait for ever for a client that takes nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from waitress.server import create_server

from chatstream_flask.serving.waitress_channel import ChatChannel

TIMEOUT_SEC = 10.0
NUM_PIECES = 40
PIECE_LEN = 1_000_000  # bytes


class Big:
    """A WSGI app whose answers fill the buffers: one large piece, or many below /many."""

    def __init__(self) -> None:
        self.num_pieces = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        num = NUM_PIECES if environ["PATH_INFO"] == "/many" else 1
        start_response("200 OK", [("Content-Length", str(num * PIECE_LEN))])
        for _ in range(num):
            yield b"x" * PIECE_LEN
            self.num_pieces += 1


@pytest.fixture
def app() -> Big:
    return Big()


@pytest.fixture
def port(app: Big) -> Iterator[int]:
    server: Any = create_server(  # type: ignore[no-untyped-call]
        app,
        host="127.0.0.1",
        port=0,
        threads=1,
        outbuf_high_watermark=2_000_000,
        outbuf_overflow=100_000_000,
        asyncore_use_poll=True,
    )
    server.channel_class = partial(ChatChannel, 0.3)
    thread = threading.Thread(target=server.run, name="chatstream-test-server")
    thread.start()
    yield int(server.effective_port)
    server.asyncore.close_all(server._map)
    server.task_dispatcher.shutdown()
    thread.join(TIMEOUT_SEC)


def test_the_only_thread_is_given_back(app: Big, port: int) -> None:
    with socket.socket() as sock:
        sock.settimeout(TIMEOUT_SEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /many HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(17) == b"HTTP/1.1 200 OK\r\n"
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SEC) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.recv(17) == b"HTTP/1.1 200 OK\r\n"
        assert app.num_pieces < NUM_PIECES
