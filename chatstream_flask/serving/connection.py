"""What our gunicorn worker knows of a connection, and how gunicorn's parser reads from it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn

from .client_socket import ClientSocket
from .request_buffer import RequestBuffer

RECV_LEN = 65_536
PIECE_LEN = 65_536  # what gunicorn's parser gets at once, so that its limits are checked in between


class Connection(TConn):
    """A client's connection: outside its requests it belongs to the worker's poller."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.sock: Any = sock  # a ClientSocket once its requests are waited for in the poller
        self.parser: Any = None
        self.buffer: RequestBuffer | None = None  # while a request is waited for
        self.began_at: float | None = None  # the first byte of that request
        self.has_continued = False  # the client was told to send the body
        self.rest = b""  # received behind the request that is being served
        self.is_large = False  # the request being served has a body above the limit
        self.on_event: Callable[[Connection], None] | None = None  # None: the poller does not watch it
        self.deadline = 0.0  # for that
        self.is_kept = False  # after its answer was written
        self.num_drained = 0  # bytes taken after its last answer
        self.is_http2_greeted = True

    @property
    def is_polled(self) -> bool:
        """Its requests are waited for in the poller; else gunicorn does everything in threads."""
        return isinstance(self.sock, ClientSocket)


class HeldUnreader(Unreader):
    """Give gunicorn's parser the bytes that have arrived, then nothing; for a large body, the socket."""

    def __init__(self) -> None:
        super().__init__()
        self._held = memoryview(b"")
        self.sock: ClientSocket | None = None

    def hold(self, data: bytes, sock: ClientSocket | None) -> None:
        self._held, self.sock = memoryview(data), sock

    def chunk(self, size_hint: int | None = None) -> bytes:
        if self._held:
            piece, self._held = self._held[:PIECE_LEN], self._held[PIECE_LEN:]
            return bytes(piece)
        return b"" if self.sock is None else self.sock.recv(RECV_LEN)

    def take_all(self) -> bytes:
        """Return what the parser has not used."""
        data = self.take_buffered() + bytes(self._held)
        self.hold(b"", None)
        return data
