"""A client's socket whose writer does not wait for a slow reader."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_PENDING = 16_777_216  # bytes that a client has not taken; above that a writer waits, as under waitress
SLICE_LEN = 262_144  # bytes given to the system at once

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ClientSocket:
    """Send what the network takes at once and keep the rest for `flush`, which the server's main loop calls.

    The socket itself never blocks; `recv` waits up to the timeout that was set. Other attributes are the
    socket's own.
    """

    def __init__(self, sock: socket.socket, on_pending: Callable[[], None], timeout_sec: float) -> None:
        """:param on_pending: called by a writing thread when something was left for `flush`"""
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

    # -- as of a socket --------------------------------------------------------------------------------

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
                    raise TimeoutError("the client sends nothing") from None

    def sendall(self, data: bytes) -> None:
        """Send now or keep for `flush`.

        :raises BrokenPipeError: the client has gone, or left too much unread for longer than the timeout
        """
        with self._changed:
            self._check()
            had_pending = bool(self._pending)
            num_sent = 0 if had_pending else self._send_now(data)
            self._pending += memoryview(data)[num_sent:]
            if self._pending and not had_pending:
                self._on_pending()
            if len(self._pending) > MAX_PENDING:
                self._wait_until_taken()

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """Refuse: only the main loop, which has `sock`, ends a connection."""
        raise OSError("the main loop ends this connection")

    def close(self) -> None:
        """Ignore it, for the same reason."""

    # -- for the main loop -----------------------------------------------------------------------------

    def recv_now(self, num_bytes: int) -> bytes:
        """Return what has arrived; do not wait.

        :raises OSError: one of WOULD_BLOCK: nothing has arrived; else the connection is lost
        """
        with self._changed:
            return self.sock.recv(num_bytes)

    def flush(self) -> int:
        """Send what the network takes of what is pending; return the number of bytes sent.

        :raises OSError: the connection is lost; writing raises from now on
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
        """Drop what is pending; from now on writing raises this error."""
        with self._changed:
            self._error = self._error or error
            self._pending.clear()
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------------------

    def _send_now(self, data: bytes | bytearray) -> int:
        """Send in slices: what TLS could not send must be tried again, at least as long as it was."""
        num_sent = 0
        try:
            while num_sent < len(data):
                num_sent += self.sock.send(bytes(data[num_sent : num_sent + SLICE_LEN]))
        except WOULD_BLOCK:
            pass
        return num_sent

    def _wait_until_taken(self) -> None:
        is_taken = self._changed.wait_for(
            lambda: self._error is not None or len(self._pending) <= MAX_PENDING, self._timeout_sec
        )
        if not is_taken:
            self.fail(TimeoutError("the client does not take what is sent"))
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise BrokenPipeError(errno.EPIPE, "the client has gone or takes nothing") from self._error

    def _deadline(self) -> float | None:
        return None if self._timeout_sec is None else time.monotonic() + self._timeout_sec
