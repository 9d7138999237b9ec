"""Upstream: one engine that is reached over HTTP, and whether it may be used now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

from .dialect import Dialect

logger = logging.getLogger("chatstream_flask")

MAX_FAILURES = 3  # in a row; then nothing is sent until a probe has succeeded
MIN_PAUSE_SEC, MAX_PAUSE_SEC = 1.0, 30.0  # between probes; doubled each time


class State(Enum):
    """Whether requests may be sent to an upstream."""

    UP = "up"
    DOWN = "down"  # failed too often in a row, or has not been probed yet
    DRAINING = "draining"  # was taken out; its running replies go on


class Upstream:
    """A circuit breaker with counts. Any thread may use it.

    After `MAX_FAILURES` failures in a row it is down: only probes are sent, at growing intervals, and one
    that generates a token brings it up again. Then a single failure is enough for the next time, until a
    request has succeeded.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.state = State.DOWN
        self.dialect: Dialect | None = None  # None: not probed yet
        self.num_running = 0
        self.num_requests = 0
        self.num_failures = 0
        self.num_tokens = 0
        self.fault: str | None = None  # why it is down
        self._busy_until = 0.0
        self._num_failures_in_row = MAX_FAILURES - 1
        self._pause_sec = MIN_PAUSE_SEC
        self._probe_at = 0.0
        self._clock = clock
        self._lock = threading.Lock()  # guards the counts

    def __repr__(self) -> str:
        return f"<Upstream {self.url} {self.state.value} [{self.num_running} running]>"

    @property
    def is_up(self) -> bool:
        return self.state is State.UP

    @property
    def is_busy(self) -> bool:
        """Whether it has asked for no requests for a while."""
        return self._clock() < self._busy_until

    @property
    def is_probe_due(self) -> bool:
        return self.state is State.DOWN and self._clock() >= self._probe_at

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count a reply as running in the `with` block."""
        with self._lock:
            self.num_running += 1
            self.num_requests += 1
        try:
            yield
        finally:
            with self._lock:
                self.num_running -= 1

    def count_tokens(self, num: int) -> None:
        with self._lock:
            self.num_tokens += num

    def set_busy(self, seconds: float) -> None:
        """Send nothing for a while, as the engine asks."""
        self._busy_until = self._clock() + seconds

    def record_success(self) -> None:
        self._num_failures_in_row = 0
        self._pause_sec = MIN_PAUSE_SEC

    def record_failure(self, reason: str) -> None:
        with self._lock:
            self.num_failures += 1
            self._num_failures_in_row += 1
            is_up = self.state is State.UP
            goes_down = is_up and self._num_failures_in_row >= MAX_FAILURES
            if goes_down:
                self.state, self.fault = State.DOWN, reason
                self._probe_at = self._clock() + self._pause_sec
        logger.warning("the engine at %s failed: %s", self.url, reason)
        if goes_down:
            logger.error("the engine at %s is not used until it answers again", self.url)

    def record_probe(self, dialect: Dialect | None, fault: str | None) -> None:
        """Bring it up after a probe that succeeded; after one that failed, wait longer for the next.

        :param fault: why it failed; None: it succeeded
        """
        with self._lock:
            if self.state is not State.DOWN:
                return
            if fault is None:
                self.dialect, self.state, self.fault = dialect, State.UP, None
                self._num_failures_in_row = MAX_FAILURES - 1
            else:
                self._probe_at = self._clock() + self._pause_sec
            self._pause_sec = min(2 * self._pause_sec, MAX_PAUSE_SEC)
        if fault is None:
            logger.info("the engine at %s is used", self.url)
        elif fault != self.fault:
            logger.warning("the engine at %s is not used: %s", self.url, fault)
        self.fault = fault

    def drain(self) -> None:
        """Send no new requests; those that run go on."""
        with self._lock:
            self.state = State.DRAINING
