"""Readers of a reply, who may come and go while it is generated."""

from __future__ import annotations

from typing import Protocol

# Upper bound for the grace period while the request waits. Reloading the page takes less, and visitors who
# are still there should not wait for those who left.
QUEUE_GRACE_SEC = 5.0


class Reader(Protocol):
    """Somebody who reads a reply; `close` ends the reading."""

    def close(self) -> None: ...


class Readers:
    """The readers that are attached, and since when there are none. Not locked: its request guards it."""

    def __init__(self) -> None:
        self._attached: list[Reader] = []
        self.orphaned_at: float | None = None  # when the last reader left; None while there is one
        self._grace_sec = 0.0

    def attach(self, reader: Reader) -> list[Reader]:
        """Add a reader; return all readers, the one attached for longest first."""
        self._attached.append(reader)
        self.orphaned_at = None
        return list(self._attached)

    def remove(self, reader: Reader) -> bool:
        """Remove a reader; return whether it was the last one. Idempotent."""
        if reader not in self._attached:
            return False
        self._attached.remove(reader)
        return not self._attached

    def start_grace(self, grace_sec: float, now: float) -> None:
        """Give a new reader `grace_sec` seconds to attach."""
        self._grace_sec = grace_sec
        self.orphaned_at = now  # set last: the worker thread reads it without the lock

    def grace_sec(self, *, is_waiting: bool) -> float:
        """Return how long the request lives on after `orphaned_at`."""
        return min(self._grace_sec, QUEUE_GRACE_SEC) if is_waiting else self._grace_sec
