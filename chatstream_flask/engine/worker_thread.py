"""Lifecycle of a worker thread, and how other threads see whether it makes progress."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from .failure_streak import MAX_FAILURES
from .worker_stats import WorkerStats

logger = logging.getLogger("chatstream_flask")

# Opening and the first step may take this many times longer than other steps: kernels are compiled then.
FIRST_STEP_FACTOR = 4


class WorkerThread(ABC):
    """Opens, generates, closes. Any thread may read the attributes without an underscore."""

    def __init__(self, name: str, on_end: Callable[[], None], clock: Callable[[], float]) -> None:
        self.name = name
        self.stats = WorkerStats()
        self.is_idle = False  # waiting for a request, or ended as intended
        self.has_died = False  # ended by an exception
        self.is_failing = False  # ends, or has ended, because its runner failed too often in a row
        self.has_closed = False  # has freed its memory, or could not
        self.last_step_at = clock()  # or when it last got work
        self._on_end = on_end
        self._clock = clock
        self._opened = threading.Event()
        self._open_error: BaseException | None = None
        self._thread: threading.Thread | None = None

    # -- in the thread -------------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Allocate memory and get ready to generate."""

    @abstractmethod
    def _generate(self) -> None:
        """Generate until nothing is left to do."""

    @abstractmethod
    def _close(self) -> None:
        """Free the memory."""

    def run(self) -> None:
        try:
            if self._try_open():
                self._generate_and_close()
        finally:
            self._on_end()

    def _try_open(self) -> bool:
        try:
            self._open()
            self.last_step_at = self._clock()
        except BaseException as error:
            self._open_error = error
        finally:
            self._opened.set()
        return self._open_error is None

    def _generate_and_close(self) -> None:
        try:
            self._generate()
            self.is_idle = not self.is_failing
        except BaseException:
            logger.exception("%r died", self)
            self.has_died = True
        finally:
            try:
                self._close()
            finally:
                self.has_closed = True

    # -- from other threads --------------------------------------------------------------------------

    def start(self) -> None:
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def wait_until_open(self) -> None:
        """Wait until the thread is open; raise what it raised while opening."""
        self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    def join(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for the end of the thread; return whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set() and self._open_error is None

    def fault(self, now: float, resumed_at: float, hung_after_sec: float) -> str | None:
        """Return what is wrong with this thread; None if nothing.

        :param resumed_at: when the process last started or resumed; time before that does not count
        :param hung_after_sec: maximum duration of a step
        """
        if self._open_error is not None:
            return f"could not start: {self._open_error}"
        if self.has_died:
            return "died"
        if self.is_failing and self.has_closed:  # not before: its successor needs the memory
            return f"failed {MAX_FAILURES} times in a row"
        if self.is_idle:
            return None
        age = now - max(self.last_step_at, resumed_at)
        is_new = not (self.is_open and self.stats.step_sec.num)
        limit = hung_after_sec * (FIRST_STEP_FACTOR if is_new else 1)
        return f"has made no step for {age:.1f} s" if age > limit else None

    def stack(self) -> str:
        """Return the current stack of the thread, to append to a log message; "" if it has ended."""
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread is not None else None
        return "" if frame is None else "; its stack:\n" + "".join(traceback.format_stack(frame)).rstrip()
