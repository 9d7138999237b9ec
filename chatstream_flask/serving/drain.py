"""Drain: the orderly end of a server, which refuses new requests and lets accepted ones finish."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ..engine.engine import Engine

logger = logging.getLogger("chatstream_flask")

MAX_DRAIN_SEC = 3600.0
WRITE_OUT_SEC = 5.0  # time for the last bytes to be sent after all replies have ended


class Drain:
    """Drain of all engines of a server.

    The first call of `ask` starts it; the second one ends all replies at once. Signal handlers may call it,
    as it takes no locks.

    :param max_sec: time after which replies that are still running are ended
    :param on_end: called in another thread when every accepted request has its outcome
    """

    def __init__(self, engines: Sequence[Engine], max_sec: float, on_end: Callable[[], None]) -> None:
        self._engines = engines
        self._max_sec = max_sec
        self._on_end = on_end
        self.num_asked = 0
        self.is_over = False

    def ask(self) -> None:
        """Start the drain, or cut it short."""
        self.num_asked += 1
        if self.num_asked == 1:
            threading.Thread(target=self._run, name="chatstream-drain").start()
        elif self.num_asked == 2:
            threading.Thread(target=self.stop, name="chatstream-stop").start()

    def stop(self) -> None:
        """End all replies at once."""
        for engine in self._engines:
            engine.stop()

    def _run(self) -> None:
        deadline = time.monotonic() + self._max_sec
        for engine in self._engines:
            engine.begin_drain()
        if num_accepted := sum(engine.num_accepted for engine in self._engines):
            logger.info(
                "%d replies may finish, for up to %g s; a second signal ends them",
                num_accepted,
                self._max_sec,
            )
        for engine in self._engines:
            engine.drain(max(deadline - time.monotonic(), 0))
        self.stop()
        self.is_over = True
        self._on_end()
