"""Connections that wait for their client, each with a deadline."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from .connection import Connection


class ConnectionPoller:
    """Call `on_event` of a connection when its socket is ready; tell whose deadline is over.

    Belongs to the main loop of a worker, as everything in it.
    """

    def __init__(self, poller: selectors.BaseSelector, on_failure: Callable[[Connection], None]) -> None:
        """:param on_failure: called within `except` when an `on_event` raised"""
        self._poller = poller
        self._on_failure = on_failure
        self._waiting: dict[Connection, None] = {}  # the longest waiting first
        self.num_buffered = 0  # bytes of the requests that they are sending

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, conn: Connection) -> bool:
        return conn in self._waiting

    @property
    def all(self) -> list[Connection]:
        """The connections, the longest waiting first."""
        return list(self._waiting)

    @property
    def oldest(self) -> Connection:
        return next(iter(self._waiting))

    @property
    def first_deadline_sec(self) -> float:
        """Seconds until the first deadline, at least 0; infinite without connections."""
        first = min((conn.deadline for conn in self._waiting), default=float("inf"))
        return max(first - time.monotonic(), 0)

    def watch(
        self, conn: Connection, event: int, on_event: Callable[[Connection], None], max_sec: float
    ) -> None:
        """Let a connection wait for `event` for so long."""
        conn.deadline = time.monotonic() + max_sec
        self._waiting[conn] = None
        self._register(conn, event, on_event)

    def watch_served(self, conn: Connection, event: int, on_event: Callable[[Connection], None]) -> None:
        """Wait for an event of a connection that a thread is serving: it does not count as waiting."""
        self._register(conn, event, on_event)

    def change(self, conn: Connection, event: int) -> None:
        """Wait for another event; the deadline stays."""
        self._poller.modify(conn.sock, event, self._poller.get_key(conn.sock).data)

    def unwatch(self, conn: Connection) -> None:
        """Forget a connection, with the request that it was sending. Idempotent."""
        if conn.on_event is not None:
            conn.on_event = None
            self._poller.unregister(conn.sock)
            self._waiting.pop(conn, None)
        if conn.buffer is not None:
            self.num_buffered -= len(conn.buffer)
            conn.buffer = None

    def expired(self) -> list[Connection]:
        now = time.monotonic()
        return [conn for conn in self._waiting if conn.deadline <= now]

    def _register(self, conn: Connection, event: int, on_event: Callable[[Connection], None]) -> None:
        conn.on_event = on_event
        self._poller.register(conn.sock, event, lambda _: self._handle_event(conn))

    def _handle_event(self, conn: Connection) -> None:
        if conn.on_event is None:  # ended by what else happened in this round
            return
        try:
            conn.on_event(conn)
        except Exception:
            self._on_failure(conn)
