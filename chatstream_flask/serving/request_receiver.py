"""Receipt of requests from clients that may send slowly."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Any

from .connection import Connection
from .connection_poller import ConnectionPoller
from .limits import head_timeout
from .request_buffer import Progress, RequestBuffer

UNLIMITED_LINE_LEN = 8190  # bytes of a line of the head where gunicorn is told not to limit it


class RequestReceiver:
    """Buffers the requests of connections until a thread can serve them without waiting for the client.

    Only the main loop of a worker calls it.
    """

    def __init__(
        self,
        cfg: Any,
        polled: ConnectionPoller,
        *,
        max_body_len: int,
        client_timeout_sec: float,
        on_request: Callable[[Connection], None],
        on_more: Callable[[], None],
        close: Callable[[Connection], None],
    ) -> None:
        """Create a receiver for the connections of a worker.

        :param cfg: gunicorn's settings
        :param max_body_len: bytes of a body; of a larger one only the head is awaited
        :param client_timeout_sec: time for a whole request to arrive
        :param on_request: called with a connection whose `buffer` has all that a thread needs
        :param on_more: called when more bytes of incomplete requests are held
        :param close: closes a connection; called when its client has ended it
        """
        self._cfg = cfg
        self._polled = polled
        self._max_body_len = max_body_len
        self._client_timeout_sec = client_timeout_sec
        self._on_request = on_request
        self._on_more = on_more
        self._close = close
        self.head_sec = head_timeout(client_timeout_sec)

    def wait_for_request(self, conn: Connection, data: bytes, max_sec: float) -> None:
        """Wait for the next request of a connection.

        :param data: bytes that have arrived already
        :param max_sec: time for the first byte to arrive
        """
        limits = self._max_head_len, self._max_body_len
        conn.buffer, conn.began_at, conn.has_continued = RequestBuffer(*limits), None, False
        self._polled.watch(conn, selectors.EVENT_READ, self.receive, max_sec)
        if data:
            self._received(conn, data)

    def receive(self, conn: Connection) -> None:
        """Read what has arrived of the request for which a connection waits."""
        while conn.on_event == self.receive:
            data = conn.recv_now()
            if data is None:
                return
            if not data:
                self._close(conn)
                return
            self._received(conn, data)
            if not self._cfg.is_ssl:
                return

    @property
    def _max_head_len(self) -> int:
        """Return the most bytes that gunicorn's parser accepts as the head of a request."""
        cfg = self._cfg
        line_len, field_len = (
            limit or UNLIMITED_LINE_LEN for limit in (cfg.limit_request_line, cfg.limit_request_field_size)
        )
        return int(line_len + cfg.limit_request_fields * (field_len + 2) + 8)

    def _received(self, conn: Connection, data: bytes) -> None:
        assert conn.buffer is not None
        now = time.monotonic()
        if conn.began_at is None:
            conn.began_at = now
        self._polled.num_buffered += len(data)
        progress = conn.buffer.feed(data)
        if not conn.buffer.needs_more:
            self._on_request(conn)
            return
        max_sec = self.head_sec if progress is Progress.HEAD else self._client_timeout_sec
        conn.deadline = conn.began_at + max_sec
        is_awaited = progress is Progress.BODY and conn.buffer.expects_continue
        if is_awaited and not conn.buffer.has_body_begun and not conn.has_continued:
            conn.has_continued = True
            try:
                conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:  # the client has disconnected
                self._close(conn)
                return
        self._on_more()
