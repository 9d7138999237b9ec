"""The worker threads of an engine: started together, replaced when one hangs or dies, ended together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..config import EngineConfig
from .engine_stats import EngineStats
from .outcome import FinishReason
from .request_queue import RequestQueue
from .runner import Runner
from .scheduler import Scheduler
from .watchdog import Watchdog
from .worker import FAILED, Complete, Worker

logger = logging.getLogger("chatstream_flask")

MAX_REPLACED = 5  # replacements within REPLACED_SEC that did not help; more would not, either
REPLACED_SEC = 600.0


class Replacement(NamedTuple):
    """A worker that was replaced, and its successor."""

    at: float
    worker: Worker
    successor: Worker

    @property
    def has_helped(self) -> bool:
        """Whether the fault was that of a request: the successor works, and the replaced thread has ended."""
        return self.successor.failures.has_succeeded and not self.worker.is_alive


def is_failing(worker: Worker) -> bool:
    """Return whether a worker fails at each step, or replaces one that did and is not open yet."""
    return worker.is_failing or (worker.failures.follows_failing and not worker.is_open)


class WorkerPool:
    """A fixed number of positions, each with its slots and its device, and the worker that has it now.

    When a worker cannot be replaced, the pool is `broken`: nothing new is accepted, waiting requests end with
    an error, and the other workers finish their replies.
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
        self._replacements: list[Replacement] = []  # the newest ones that have not helped yet
        self._changing = threading.Lock()  # guards everything below, and `broken`
        self._is_stopping = False
        self.watchdog = Watchdog(lambda: self.workers, self._on_fault, hung_after_sec, clock)
        self._workers = [self._make_worker(i, i) for i in range(config.num_of_generation_threads)]

    def __repr__(self) -> str:
        return f"<WorkerPool {self._workers!r}{f' broken: {self.broken}' if self.broken else ''}>"

    @property
    def workers(self) -> list[Worker]:
        return list(self._workers)

    @property
    def is_failing(self) -> bool:
        """Whether every worker fails at each step, and those that replace them are not open yet."""
        workers = self.workers
        return bool(workers) and all(map(is_failing, workers))

    def start(self) -> None:
        """Start all threads and wait until they are open; raise what a thread raised while opening."""
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            worker.wait_until_open()
        self.watchdog.start()

    def stop(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all threads, after the queue was closed. Idempotent.

        The requests of threads that do not end in time are finished without them.

        :returns: whether all threads ended in time
        """
        with self._changing:
            self._is_stopping = True
            workers, self._workers = self._workers, []
        self.watchdog.stop()
        deadline = time.monotonic() + timeout
        alive = [worker for worker in workers if not worker.join(max(deadline - time.monotonic(), 0))]
        if alive:
            logger.warning("%d generation threads did not end within %s s", len(alive), timeout)
        for worker in workers:
            for request in self._queue.retire(worker.index):
                self._complete(request, FinishReason.SHUTDOWN, None)
        return not alive

    # -- faults, reported by the watchdog ------------------------------------------------------------

    def _on_fault(self, worker: Worker, fault: str) -> None:
        """Replace a worker, and end its requests with an error."""
        with self._changing:
            if self._is_stopping or worker not in self._workers:
                return
            position = self._workers.index(worker)
            orphans = self._queue.retire(worker.index)
            logger.error("%r %s; its %d replies end%s", worker, fault, len(orphans), worker.stack())
            successor = self._start_successor(worker, fault, position)
            self._workers[position : position + 1] = [] if successor is None else [successor]
            if self.broken is not None:
                orphans += self._queue.close()
        for request in orphans:
            self._complete(request, FinishReason.ERROR, FAILED)

    def _start_successor(self, worker: Worker, fault: str, position: int) -> Worker | None:
        """Start a new worker; return None if none is needed any more or the pool is broken.

        Whether the successor works is known when it has opened; if not, that is the next fault.
        """
        if self._queue.is_exhausted:
            return None
        self.broken = self._why_broken(worker, fault)
        if self.broken is None:
            self._stats.record_replaced(
                "failing" if worker.is_failing else "died" if worker.has_died else "hung"
            )
            try:
                successor = self._make_worker(
                    self._queue.add_worker(worker.index),
                    position,
                    follows_failing=worker.is_failing or worker.failures.follows_failing,
                    begins_with_test=not worker.is_failing,
                )
                self._replacements.append(Replacement(self._clock(), worker, successor))
                successor.start()
                return successor
            except Exception as error:
                self.broken = f"a generation thread could not be replaced: {error}"
        logger.critical("nothing can be generated any more: %s", self.broken)
        return None

    def _why_broken(self, worker: Worker, fault: str) -> str | None:
        """Return why replacing this worker would not help; None if it may."""
        since = self._clock() - REPLACED_SEC
        self._replacements = [r for r in self._replacements if r.at > since and not r.has_helped]
        if not worker.is_open:
            return f"generation thread {worker.index} {fault}"
        if worker.is_failing and worker.failures.follows_failing:
            return f"generation thread {worker.index} {fault}, as the one before it did"
        if len(self._replacements) >= MAX_REPLACED:
            return (
                f"{MAX_REPLACED} generation threads were replaced within {REPLACED_SEC / 60:.0f} minutes, "
                "and another one failed"
            )
        return None

    def _make_worker(
        self, index: int, position: int, *, follows_failing: bool = False, begins_with_test: bool = False
    ) -> Worker:
        config = self._config
        runner = self._make_runner(position)
        scheduler = Scheduler(
            config.num_slots(position),
            config.prefill_chunk_len,
            config.num_kept_slots(position),
            keeps_prefixes=runner.keeps_prefixes,
        )
        worker = Worker(
            index,
            self._queue,
            runner,
            scheduler,
            self._complete,
            on_end=self.watchdog.wake,
            clock=self._clock,
            prefill_priority=config.prefill_priority,
            follows_failing=follows_failing,
            begins_with_test=begins_with_test,
        )
        self._stats.threads.append(worker.stats)
        return worker
