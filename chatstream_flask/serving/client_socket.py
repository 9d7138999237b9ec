"""Socket of a client whose writer does not wait for a slow reader."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_PENDING = 16_777_216  # bytes kept for a slow client; above that a writer waits, as under waitress
SLICE_LEN = 262_144  # bytes passed to `send` at once

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ClientSocket:
    """Socket that sends what it can at once; the server's main loop sends the rest by `flush`.

    The wrapped socket is non-blocking; `recv` waits up to the timeout. Other attributes are the wrapped
    socket's.
    """

    def __init__(self, sock: socket.socket, on_pending: Callable[[], None], timeout_sec: float) -> None:
        """Wrap a socket.

        :param on_pending: called by a writing thread when it has left bytes for `flush`
        """
        sock.setblocking(False)
        self.sock = sock
        self._on_pending = on_pending
        self._timeout_sec: float | None = timeout_sec
        self._changed = threading.Condition()  # guards everything below, and the socket of a TLS connection
        self._pending = bytearray()
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def __repr__(self) -> str:
        return f"<ClientSocket {self.sock!r}>"

    @property
    def has_pending(self) -> bool:
        return bool(self._pending)

    @property
    def resets_on_close(self) -> bool:
        """Whether the app wants the client to see that its response was cut short."""
        is_on, sec = struct.unpack("ii", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        return bool(is_on) and not sec

    # -- methods of a socket, for threads --------------------------------------------------------------

    def setblocking(self, is_blocking: bool) -> None:
        """Ignore it: only the timeout of this object counts."""

    def settimeout(self, timeout_sec: float | None) -> None:
        self._timeout_sec = timeout_sec

    def gettimeout(self) -> float | None:
        return self._timeout_sec

    def recv(self, num_bytes: int) -> bytes:
        """Wait for bytes.

        :raises TimeoutError: nothing came within the timeout
        """
        deadline = self._deadline()
        while True:
            try:
                return self.recv_now(num_bytes)
            except WOULD_BLOCK as error:
                remaining_sec = None if deadline is None else max(deadline - time.monotonic(), 0)
                wanted = select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else select.POLLIN
                poll = select.poll()
                poll.register(self.sock.fileno(), wanted)
                if not poll.poll(None if remaining_sec is None else remaining_sec * 1000):
                    raise TimeoutError("the client did not send anything in time") from None

    def sendall(self, data: bytes) -> None:
        """Send now or keep for `flush`.

        :raises BrokenPipeError: the client has disconnected, or did not read for longer than the timeout
        """
        with self._changed:
            self._check()
            had_pending = bool(self._pending)
            num_sent = 0 if had_pending else self._send_now(data)
            self._pending += memoryview(data)[num_sent:]
            if self._pending and not had_pending:
                self._on_pending()
            if len(self._pending) > MAX_PENDING:
                self._wait_until_read()

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """Raise OSError: only the main loop, by `sock`, closes a connection."""
        raise OSError("only the main loop closes this connection")

    def close(self) -> None:
        """Do nothing: only the main loop, by `sock`, closes a connection."""

    # -- for the main loop -----------------------------------------------------------------------------

    def recv_now(self, num_bytes: int) -> bytes:
        """Return the bytes that have arrived, without waiting.

        :raises OSError: one of WOULD_BLOCK if there are none; any other if the connection is lost
        """
        with self._changed:
            return self.sock.recv(num_bytes)

    def flush(self) -> int:
        """Send as many pending bytes as possible without waiting; return how many.

        :raises OSError: the connection is lost; further writes fail too
        """
        with self._changed:
            self._check()
            try:
                num_sent = self._send_now(self._pending)
            except OSError as error:
                self.fail(error)
                raise
            del self._pending[:num_sent]
            self._changed.notify_all()
            return num_sent

    def fail(self, error: OSError) -> None:
        """Drop pending bytes and make further writes fail with this error."""
        with self._changed:
            self._error = self._error or error
            self._pending.clear()
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------------------

    def _send_now(self, data: bytes | bytearray) -> int:
        """Send without waiting; return the number of bytes sent.

        Data is sent in slices, as TLS requires a retry to have at least the bytes of the failed attempt.
        """
        num_sent = 0
        try:
            while num_sent < len(data):
                num_sent += self.sock.send(bytes(data[num_sent : num_sent + SLICE_LEN]))
        except WOULD_BLOCK:
            pass
        return num_sent

    def _wait_until_read(self) -> None:
        is_read = self._changed.wait_for(
            lambda: self._error is not None or len(self._pending) <= MAX_PENDING, self._timeout_sec
        )
        if not is_read:
            self.fail(TimeoutError("the client did not read in time"))
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise BrokenPipeError(errno.EPIPE, "the client is gone or does not read") from self._error

    def _deadline(self) -> float | None:
        return None if self._timeout_sec is None else time.monotonic() + self._timeout_sec
