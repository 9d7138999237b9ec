"""Responses to clients that may read slowly, and the end of a connection after the last one."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

from .connection import Connection
from .connection_poller import ConnectionPoller

LINGER_SEC = 2.0  # time for a client to close its side after the last response
MAX_LINGER_LEN = 8_388_608  # bytes that are read and discarded meanwhile


class ResponseSender:
    """Sends what clients have not read yet of their responses, so that no thread waits for them.

    Only the main loop of a worker calls it.
    """

    def __init__(
        self,
        polled: ConnectionPoller,
        *,
        client_timeout_sec: float,
        on_kept: Callable[[Connection], None],
        close: Callable[[Connection], None],
    ) -> None:
        """Create a sender for the connections of a worker.

        :param client_timeout_sec: time for a client to read anything
        :param on_kept: called with a connection that waits for another request, its response being sent
        :param close: closes a connection
        """
        self._polled = polled
        self._client_timeout_sec = client_timeout_sec
        self._on_kept = on_kept
        self._close = close

    def send_while_served(self, conn: Connection) -> None:
        """Begin to send what the thread that is still writing the response has left."""
        if conn.is_polled and conn.on_event is None and conn.sock.has_pending:
            self._polled.watch_served(conn, selectors.EVENT_WRITE, self._flush)

    def send_rest(self, conn: Connection, *, is_kept: bool) -> None:
        """Send the rest of the response; then wait for the next request or close the connection."""
        self._polled.unwatch(conn)
        conn.is_kept = is_kept
        if conn.sock.has_pending:
            self._polled.watch(conn, selectors.EVENT_WRITE, self._flush, self._client_timeout_sec)
        else:
            self._sent(conn)

    def refuse(self, conn: Connection, answer: bytes) -> None:
        """Respond without the app, and close the connection."""
        try:
            conn.sock.sendall(answer)
        except OSError:
            self._close(conn)
            return
        self.send_rest(conn, is_kept=False)

    def is_sending(self, conn: Connection) -> bool:
        """Return whether a connection waits for its client to read."""
        return conn.on_event == self._flush

    def _flush(self, conn: Connection) -> None:
        try:
            num_sent = conn.sock.flush()
        except OSError:
            num_sent = 0
        if conn in self._polled:
            if num_sent:
                conn.deadline = time.monotonic() + self._client_timeout_sec
            elif not conn.sock.has_pending:  # the connection is lost
                self._close(conn)
                return
        if not conn.sock.has_pending:
            is_answered = conn in self._polled
            self._polled.unwatch(conn)
            if is_answered:
                self._sent(conn)

    def _sent(self, conn: Connection) -> None:
        if conn.is_kept:
            self._on_kept(conn)
            return
        if conn.sock.resets_on_close:
            self._close(conn)
            return
        try:
            conn.sock.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._polled.watch(conn, selectors.EVENT_READ, self._linger, LINGER_SEC)

    def _linger(self, conn: Connection) -> None:
        """Read and discard until the client closes its side.

        Closing with unread bytes would reset the connection, and the client could lose the response.
        """
        data = conn.recv_now()
        if data is None:
            return
        conn.num_drained += len(data)
        if not data or conn.num_drained > MAX_LINGER_LEN:
            self._close(conn)
