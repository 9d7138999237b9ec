"""Sweeps of a server that gets no requests: nothing is kept longer because nobody comes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..conversation.sweeper import Sweeper


class Sweeps:
    """Thread that sweeps the stores of a server's apps at the start and then at their intervals."""

    def __init__(self, sweepers: Iterable[Sweeper]) -> None:
        self._sweepers = list(dict.fromkeys(sweepers))  # the ChatStreams of one app share one
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chatstream-sweeps", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a sweep."""
        self._ended.set()

    def _run(self) -> None:
        for sweeper in self._sweepers:
            sweeper.sweep()
        interval_sec = min(sweeper.interval_sec for sweeper in self._sweepers)
        while not self._ended.wait(interval_sec):
            for sweeper in self._sweepers:
                sweeper.sweep_if_due()
