"""The life of a generation thread, and the signs by which others see that it moves."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from .worker_stats import WorkerStats

logger = logging.getLogger("chatstream_flask")

FIRST_STEP_FACTOR = 4  # opening, and the first step, may take so much longer: kernels are chosen or compiled


class WorkerThread(ABC):
    """Opens, generates until all is over, closes. Any thread may read `stats`, `is_idle`, `last_step_at`."""

    def __init__(self, name: str, on_end: Callable[[], None], clock: Callable[[], float]) -> None:
        self.name = name
        self.stats = WorkerStats()
        self.is_idle = False  # waiting for a request, or ended as it should
        self.has_died = False  # of a fault
        self.last_step_at = clock()  # or when it last took up work
        self._on_end = on_end
        self._clock = clock
        self._opened = threading.Event()
        self._open_error: BaseException | None = None
        self._thread: threading.Thread | None = None

    # -- in the thread -------------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Takes memory."""

    @abstractmethod
    def _generate(self) -> None:
        """Returns when nothing is left to do."""

    @abstractmethod
    def _close(self) -> None: ...

    def run(self) -> None:
        try:
            if self._is_opened():
                self._generate_and_close()
        finally:
            self._on_end()

    def _is_opened(self) -> bool:
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
            self.is_idle = True
        except BaseException:
            logger.exception("%r died", self)
            self.has_died = True
        finally:
            self._close()

    # -- from other threads --------------------------------------------------------------------------

    def start(self) -> None:
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def wait_until_open(self) -> None:
        """Raises what `_open` raised."""
        self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    def join(self, timeout: float | None) -> bool:
        """True when the thread has ended."""
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

    def fault(self, now: float, moving_since: float, hung_after_sec: float) -> str | None:
        """What is wrong with this thread, if anything; the process as a whole moves since `moving_since`."""
        if self._open_error is not None:
            return f"could not start: {self._open_error}"
        if self.has_died:
            return "died"
        if self.is_idle:
            return None
        age = now - max(self.last_step_at, moving_since)
        is_new = not (self.is_open and self.stats.step_sec.num)
        limit = hung_after_sec * (FIRST_STEP_FACTOR if is_new else 1)
        return f"has made no step for {age:.1f} s" if age > limit else None

    def stack(self) -> str:
        """Where the thread is now, for the log; "" when it has ended."""
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread is not None else None
        return "" if frame is None else "; it is at\n" + "".join(traceback.format_stack(frame)).rstrip()
