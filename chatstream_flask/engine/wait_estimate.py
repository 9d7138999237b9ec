"""Estimates of waiting times, from how long the latest replies held a slot."""

from __future__ import annotations

import math
from collections import deque

NUM_REPLIES = 32  # that the mean is taken over
MAX_RETRY_SEC = 59  # clients honour a Retry-After of at most 60 s


class WaitEstimate:
    """Mean time that a reply holds one of `num_slots` slots, and what follows from it for those who wait."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._durations: deque[float] = deque(maxlen=NUM_REPLIES)  # seconds

    def add(self, duration_sec: float) -> None:
        self._durations.append(duration_sec)

    def sec_until_start(
        self, position: int, *, num_running: int, num_waiting: int, num_startable: int
    ) -> float | None:
        """Return the seconds until the request at this queue position runs; None before the first reply.

        :param num_startable: how many of the waiting requests may run as soon as there are slots
        """
        if (mean := self._mean_sec) is None:
            return None
        if num_startable < position <= num_waiting:  # waits for a reply of its own visitor
            return mean * max(position / self._num_slots, 1.0)
        return 0.0 if num_running + position <= self._num_slots else mean * position / self._num_slots

    @property
    def retry_after_sec(self) -> int:
        """When a slot may become free: whole seconds, 1 to `MAX_RETRY_SEC`."""
        return _retry_sec((self._mean_sec or 0.0) / self._num_slots)

    @property
    def visitor_retry_after_sec(self) -> int:
        """When one reply of a single visitor may end: whole seconds, 1 to `MAX_RETRY_SEC`."""
        return _retry_sec(self._mean_sec or 0.0)

    @property
    def _mean_sec(self) -> float | None:
        return sum(self._durations) / len(self._durations) if self._durations else None


def _retry_sec(seconds: float) -> int:
    return min(max(math.ceil(seconds), 1), MAX_RETRY_SEC)
