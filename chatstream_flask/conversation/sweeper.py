"""Regular removal of what has expired and of what exceeds the limits of the stores."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("chatstream_flask")


class Sweeper:
    """Purges the stores of one app from time to time, in a thread that ends with the purge.

    Several processes may sweep the same stores. It keeps no thread between two sweeps, so an app that is no
    longer used can be collected.

    :param purge: deletes what is to go and returns how many
    :param interval_sec: least time between the beginnings of two sweeps
    :param clock: returns seconds; for tests
    """

    def __init__(
        self,
        purge: Callable[[], int],
        interval_sec: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_sec = interval_sec
        self._purge = purge
        self._clock = clock
        self._next_at = clock() + interval_sec
        self._lock = threading.Lock()  # guards _next_at
        self._sweeping = threading.Lock()  # held during a sweep: a slow one delays the next

    def sweep_if_due(self) -> threading.Thread | None:
        """Start a sweep if the last one began long enough ago; return its thread, else None."""
        with self._lock:
            if self._clock() < self._next_at:
                return None
            self._next_at = self._clock() + self.interval_sec
        thread = threading.Thread(target=self.sweep, name="chatstream-sweep", daemon=True)
        thread.start()
        return thread

    def sweep(self) -> None:
        """Purge now, unless a sweep is running. An error is logged; the next sweep tries again."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            if num_removed := self._purge():
                logger.info("%d expired or exceeding sessions and conversations were removed", num_removed)
        except Exception as error:
            logger.warning("expired conversations could not be removed and are tried again later: %s", error)
        finally:
            self._sweeping.release()
