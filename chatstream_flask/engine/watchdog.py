"""Looks after the generation threads: one that hangs or has died is found within seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .worker import Worker

logger = logging.getLogger("chatstream_flask")

CHECK_SEC = 1.0
STANDSTILL_SEC = 5.0  # between two checks: then not one thread stood still, but the whole process


class Watchdog:
    """Asks every worker for its fault, each second and at once when one ends; `give_up` does the rest."""

    def __init__(
        self,
        workers: Callable[[], list[Worker]],
        give_up: Callable[[Worker, str], None],
        hung_after_sec: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hung_after_sec = hung_after_sec
        self._workers = workers
        self._give_up = give_up
        self._clock = clock
        self._checked_at = self._moving_since = clock()
        self._woken = threading.Event()
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Watchdog hung_after_sec={self._hung_after_sec():g}>"

    def start(self) -> None:
        self._is_stopped = False
        self._checked_at = self._moving_since = self._clock()
        self._thread = threading.Thread(target=self._run, name="chatstream-watchdog", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Not from a thread that holds what `give_up` needs."""
        thread, self._thread = self._thread, None
        self._is_stopped = True
        self.wake()
        if thread is not None:
            thread.join()

    def check(self) -> None:
        now = self._clock()
        if now - self._checked_at > STANDSTILL_SEC:
            self._moving_since = now
        self._checked_at = now
        for worker in self._workers():
            if fault := self.fault_of(worker):
                self._give_up(worker, fault)

    def fault_of(self, worker: Worker) -> str | None:
        return worker.fault(self._clock(), self._moving_since, self._hung_after_sec())

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self.check()
            except Exception:
                logger.exception("the watchdog failed; it goes on")
            self._woken.wait(min(CHECK_SEC, self._hung_after_sec() / 4))
            self._woken.clear()
