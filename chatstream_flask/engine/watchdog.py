"""Watchdog: detects worker threads that hang or have died, within seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .worker import Worker

logger = logging.getLogger("chatstream_flask")

CHECK_SEC = 1.0
SUSPENDED_SEC = 5.0  # a longer gap between two checks means that the whole process was suspended


class Watchdog:
    """Checks every worker each second, and at once when one ends; calls `on_fault` for each fault."""

    def __init__(
        self,
        workers: Callable[[], list[Worker]],
        on_fault: Callable[[Worker, str], None],
        hung_after_sec: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hung_after_sec = hung_after_sec
        self._workers = workers
        self._on_fault = on_fault
        self._clock = clock
        self._checked_at = self._resumed_at = clock()
        self._woken = threading.Event()
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Watchdog hung_after_sec={self._hung_after_sec():g}>"

    def start(self) -> None:
        self._is_stopped = False
        self._checked_at = self._resumed_at = self._clock()
        self._thread = threading.Thread(target=self._run, name="chatstream-watchdog", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Check now."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread and wait for it; the caller must hold no lock that `on_fault` takes."""
        thread, self._thread = self._thread, None
        self._is_stopped = True
        self.wake()
        if thread is not None:
            thread.join()

    def check(self) -> None:
        now = self._clock()
        if now - self._checked_at > SUSPENDED_SEC:
            self._resumed_at = now
        self._checked_at = now
        for worker in self._workers():
            if fault := self.fault_of(worker):
                self._on_fault(worker, fault)

    def fault_of(self, worker: Worker) -> str | None:
        return worker.fault(self._clock(), self._resumed_at, self._hung_after_sec())

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self.check()
            except Exception:
                logger.exception("a check of the watchdog failed; it goes on")
            self._woken.wait(min(CHECK_SEC, self._hung_after_sec() / 4))
            self._woken.clear()
