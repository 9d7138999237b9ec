"""The generation threads of an engine: started together, replaced when one hangs or dies, ended together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from ..config import EngineConfig
from .engine_stats import EngineStats
from .outcome import FinishReason
from .request_queue import RequestQueue
from .runner import Runner
from .scheduler import Scheduler
from .watchdog import Watchdog
from .worker import FAILED, Complete, Worker

logger = logging.getLogger("chatstream_flask")

MAX_REPLACED = 5  # within REPLACED_SEC; more than these are no accident any more
REPLACED_SEC = 600.0


class WorkerPool:
    """Worker i has the i-th share of the slots and its device, and so has its successor.

    When no successor can be had the pool is `broken`: nothing new is taken, what waits ends with an error,
    and the other threads finish what they have.
    """

    def __init__(
        self,
        config: EngineConfig,
        queue: RequestQueue,
        make_runner: Callable[[int], Runner],
        complete: Complete,
        stats: EngineStats,
        *,
        hung_after_sec: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.broken: str | None = None  # why nothing can be generated any more
        self._config = config
        self._queue = queue
        self._make_runner = make_runner
        self._complete = complete
        self._stats = stats
        self._clock = clock
        self._replaced_at: deque[float] = deque(maxlen=MAX_REPLACED + 1)
        self._changing = threading.Lock()  # guards everything below, and `broken`
        self._is_stopping = False
        self.watchdog = Watchdog(lambda: self.workers, self._give_up, hung_after_sec, clock)
        self._workers = [self._make_worker(i, i) for i in range(config.num_of_generation_threads)]

    def __repr__(self) -> str:
        return f"<WorkerPool {self._workers!r}{f' broken: {self.broken}' if self.broken else ''}>"

    @property
    def workers(self) -> list[Worker]:
        return list(self._workers)

    def start(self) -> None:
        """Raises what a thread raised when it took its memory."""
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            worker.wait_until_open()
        self.watchdog.start()

    def stop(self, timeout: float) -> bool:
        """When the queue is closed: True when all threads ended in time. Idempotent."""
        with self._changing:
            self._is_stopping = True
            workers, self._workers = self._workers, []
        self.watchdog.stop()
        deadline = time.monotonic() + timeout
        alive = [worker for worker in workers if not worker.join(max(deadline - time.monotonic(), 0))]
        if alive:
            logger.warning("%d generation threads did not end within %s s", len(alive), timeout)
        for worker in workers:  # of one that hangs, or died just now
            for request in self._queue.retire(worker.index):
                self._complete(request, FinishReason.SHUTDOWN, None)
        return not alive

    # -- a thread that hangs or died -------------------------------------------------------------------

    def _give_up(self, worker: Worker, fault: str) -> None:
        """By the watchdog: the thread's requests end without it, and its successor starts."""
        with self._changing:
            if self._is_stopping or worker not in self._workers:
                return
            place = self._workers.index(worker)
            orphans = self._queue.retire(worker.index)
            logger.error("%r %s; its %d replies end%s", worker, fault, len(orphans), worker.stack())
            successor = self._start_successor(worker, fault, place)
            self._workers[place : place + 1] = [] if successor is None else [successor]
            if self.broken is not None:
                orphans += self._queue.close()
        for request in orphans:
            self._complete(request, FinishReason.ERROR, FAILED)

    def _start_successor(self, worker: Worker, fault: str, place: int) -> Worker | None:
        """None where none is needed, or can be had; whether it works shows when it has opened."""
        if self._queue.is_over:
            return None
        self.broken = self._why_broken(worker, fault)
        if self.broken is None:
            self._stats.record_replaced("died" if worker.has_died else "hung")
            try:
                successor = self._make_worker(self._queue.enlist(worker.index), place)
                successor.start()
                return successor
            except Exception as error:
                self.broken = f"a generation thread could not be replaced: {error}"
        logger.critical("nothing can be generated any more: %s", self.broken)
        return None

    def _why_broken(self, worker: Worker, fault: str) -> str | None:
        now = self._clock()
        self._replaced_at.append(now)
        if not worker.is_open:
            return f"generation thread {worker.index} {fault}"
        if len(self._replaced_at) > MAX_REPLACED and now - self._replaced_at[0] < REPLACED_SEC:
            return f"{MAX_REPLACED} generation threads were replaced in vain"
        return None

    def _make_worker(self, index: int, place: int) -> Worker:
        config = self._config
        scheduler = Scheduler(config.num_slots(place), config.prefill_chunk_len, config.num_kept_slots(place))
        runner = self._make_runner(place)
        worker = Worker(
            index,
            self._queue,
            runner,
            scheduler,
            self._complete,
            on_end=self.watchdog.wake,
            clock=self._clock,
        )
        self._stats.threads.append(worker.stats)
        return worker
