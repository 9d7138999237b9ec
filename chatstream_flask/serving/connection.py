"""Connection of the gunicorn worker, and the bytes of its requests as gunicorn's parser reads them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn

from .client_socket import WOULD_BLOCK, ClientSocket
from .request_buffer import RequestBuffer

RECV_LEN = 65_536
PIECE_LEN = 65_536  # bytes that gunicorn's parser gets at once; it checks its limits in between


class Connection(TConn):
    """Connection of a client; between requests it is watched by the worker's poller."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.sock: Any = sock  # a ClientSocket if the poller waits for its requests
        self.parser: Any = None
        self.buffer: RequestBuffer | None = None  # bytes of the next request while it arrives
        self.began_at: float | None = None  # arrival of the first byte of that request
        self.has_continued = False  # whether "100 Continue" was sent
        self.rest = b""  # bytes received behind the request that is being served
        self.is_large = False  # whether the request being served has a body above the limit
        self.on_event: Callable[[Connection], None] | None = None  # None: not watched by the poller
        self.deadline = 0.0  # time by which the event must happen
        self.is_kept = False  # whether to wait for another request after the response
        self.num_drained = 0  # bytes discarded after the last response
        self.is_http2_greeted = True

    @property
    def is_polled(self) -> bool:
        """Return whether the poller waits for its requests; otherwise gunicorn does all in threads."""
        return isinstance(self.sock, ClientSocket)

    def recv_now(self) -> bytes | None:
        """Return the bytes that have arrived; None if there are none yet, b"" if the connection has ended."""
        try:
            data: bytes = self.sock.recv_now(RECV_LEN)
        except WOULD_BLOCK:
            return None
        except OSError:
            return b""
        return data


class HeldUnreader(Unreader):
    """Source of bytes for gunicorn's parser: those that have arrived, then the socket for a large body."""

    def __init__(self) -> None:
        super().__init__()
        self._held = memoryview(b"")
        self.sock: ClientSocket | None = None

    def hold(self, data: bytes, sock: ClientSocket | None) -> None:
        """Set the bytes of the next request, and the socket from which the rest of a large body is read."""
        self._held, self.sock = memoryview(data), sock

    def chunk(self, size_hint: int | None = None) -> bytes:
        if self._held:
            piece, self._held = self._held[:PIECE_LEN], self._held[PIECE_LEN:]
            return bytes(piece)
        return b"" if self.sock is None else self.sock.recv(RECV_LEN)

    def take_all(self) -> bytes:
        """Return and clear the bytes that the parser has not used."""
        data = self.take_buffered() + bytes(self._held)
        self.hold(b"", None)
        return data
