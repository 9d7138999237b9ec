"""The engine: one queue, a fixed pool of generation threads, and the end of every request."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from ..config import NO_LIMITS, EngineConfig, VisitorLimits
from ..errors import ChatStreamError, EngineBroken, NotAccepting, TooManyRequests
from .engine_stats import EngineStats
from .finisher import Finisher
from .outcome import FinishReason
from .request import GenerationRequest, Status
from .request_queue import RequestQueue, Reservation
from .runner import Runner
from .worker import Worker
from .worker_pool import WorkerPool

logger = logging.getLogger("chatstream_flask")

PACE_SEC = 0.01  # for each running reply, between two chunks of text to one client
MAX_PACE_SEC = 0.04  # 25 chunks a second look like one stream
NUM_MEASURED = 32  # replies whose duration tells the waiting time of the next


class Engine:
    """`reserve` a place, `submit` a request with it, read the request, `cancel` it if need be.

    Starts when first used, in the process that uses it (a fork starts its own); starting twice is harmless.
    """

    def __init__(
        self,
        config: EngineConfig,
        make_runner: Callable[[int], Runner],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.stats = EngineStats(clock)
        self.hung_after_sec = 30.0  # without a step, though there is work; then a thread is replaced
        self._clock = clock
        self._make_runner = make_runner  # from the index of the generation thread
        self._durations: deque[float] = deque(maxlen=NUM_MEASURED)  # seconds in a slot
        self._starting = threading.Lock()  # guards start and stop
        self._pid: int | None = None  # the process whose threads these are
        self.is_stopped = False  # by `stop`: only an explicit `start` begins again
        self.is_draining = False  # by `begin_drain`: takes nothing new, until a `stop` and a `start`
        self._queue = self._make_queue()
        self._pool: WorkerPool | None = None
        self._finisher: Finisher | None = None
        stop = weakref.WeakMethod(self.stop)
        atexit.register(lambda: (method := stop()) and method(timeout=1.0))

    def __repr__(self) -> str:
        return (
            f"<Engine [{self.num_running}/{self.config.max_running} running, "
            f"{self.num_waiting}/{self.config.max_queue_size} queued]>"
        )

    @property
    def num_running(self) -> int:
        return self._queue.num_running

    @property
    def num_waiting(self) -> int:
        return self._queue.num_waiting

    @property
    def num_accepted(self) -> int:
        return self._queue.num_accepted

    @property
    def is_started(self) -> bool:
        return self._pid == os.getpid()

    @property
    def is_started_elsewhere(self) -> bool:
        """Its threads stayed in the process that this one was forked from."""
        return self._pid is not None and self._pid != os.getpid()

    @property
    def workers(self) -> list[Worker]:
        return [] if self._pool is None else self._pool.workers

    @property
    def broken(self) -> str | None:
        """Why nothing can be generated any more, until it is stopped and started."""
        return None if self._pool is None else self._pool.broken

    def fault_of(self, worker: Worker) -> str | None:
        """What is wrong with one of `workers`; the watchdog is about to replace it."""
        return None if self._pool is None else self._pool.watchdog.fault_of(worker)

    @property
    def kv_usage(self) -> float:
        """The share of the slots' columns that hold keys and values, 0 to 1."""
        held = sum(s.num_cached for worker in self.workers for s in list(worker.scheduler.running))
        return held / (self.config.max_running * self.config.context_len)

    # -- life ----------------------------------------------------------------------------------------

    def start(self, *, again: bool = True) -> None:
        """Starts the generation threads; raises ConfigError or UnsupportedModel if they cannot work.

        :param again: also after a `stop`
        """
        if self.is_started:
            return
        with self._starting:
            if self.is_started or ((self.is_stopped or self.is_draining) and not again):
                return
            self._queue = self._make_queue()
            self._finisher = Finisher(self.config.max_running, self.stats.record_finished)
            self._pool = self._make_pool()
            try:
                self._pool.start()
            except BaseException:
                self._queue.close()
                self._end_threads(timeout=10.0)
                raise
            self._pid = os.getpid()
            self.is_stopped = self.is_draining = False

    def begin_drain(self) -> None:
        """Takes nothing new from now on, started or not; what was accepted goes on. Idempotent."""
        self.is_draining = True
        with self._starting:
            self._queue.refuse_new()

    def drain(self, timeout: float) -> bool:
        """Takes nothing new and lets what was accepted finish; True when all did in time."""
        self.begin_drain()
        return self._queue.wait_until_empty(timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Ends everything: each accepted request gets its outcome, each thread ends. Idempotent."""
        with self._starting:
            if not self.is_started:
                return
            for request in self._queue.close():
                self._complete(request, FinishReason.SHUTDOWN)
            for request in self._queue.requests():
                request.request_stop(FinishReason.SHUTDOWN)
            self._end_threads(timeout)
            self._pid = None
            self.is_stopped = True

    def _end_threads(self, timeout: float) -> None:
        all_ended = self._pool is None or self._pool.stop(timeout)
        if self._finisher is not None:
            self._finisher.close(wait=all_ended)
        self._pool = None

    # -- requests ------------------------------------------------------------------------------------

    def reserve(
        self, visitor: str | None = None, priority: int = 0, limits: VisitorLimits = NO_LIMITS
    ) -> Reservation:
        """As `reserve_all`, for one request."""
        return self.reserve_all(1, visitor, priority, limits)[0]

    def reserve_all(
        self,
        num: int,
        visitor: str | None = None,
        priority: int = 0,
        limits: VisitorLimits = NO_LIMITS,
    ) -> list[Reservation]:
        """Places for requests, all of them or none; each to be closed if it is not submitted.

        :param visitor: whose they are; those who wait are served in turn. None: nobody's, without limits
        :param priority: higher ones are served first, but not for ever
        :param limits: the visitor's, from now on
        :raises TooManyRequests: there are not so many, or not for this visitor
        :raises NotAccepting: the server stops
        """
        try:
            if self.broken:
                raise EngineBroken("nothing can be generated any more; the server has to be restarted")
            return self._queue.reserve_all(num, visitor, priority, limits)
        except ChatStreamError as error:
            self._refused(error)
            raise

    def submit(self, request: GenerationRequest, place: Reservation) -> None:
        """:raises TooManyRequests: the visitor's tokens were used since the place was reserved"""
        if not self.is_started:
            raise NotAccepting("the engine is not started")
        request.place = place
        try:
            self._queue.put(request, place)
        except ChatStreamError as error:
            self._refused(error)
            raise

    def cancel(self, request: GenerationRequest, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends a request wherever it is: a waiting one now, a running one at its thread's next step."""
        request.request_stop(reason)
        if self._queue.discard(request):
            self._complete(request, reason)

    def position(self, request: GenerationRequest) -> int:
        """1 for the next one to run, 0 for one that is not waiting."""
        return self._queue.position(request) if request.status is Status.WAITING else 0

    def eta_sec(self, position: int) -> float | None:
        """Seconds until a request at this place runs, from the last replies; None before the first."""
        mean, num_slots = self._mean_duration(), self.config.max_running
        if mean is None:
            return None
        if self._queue.num_startable < position <= self.num_waiting:  # behind its visitor's own
            return mean * max(position / num_slots, 1.0)
        return 0.0 if self.num_running + position <= num_slots else mean * position / num_slots

    @property
    def flush_interval_sec(self) -> float:
        """For so long a reader collects text before it sends it: with many replies, a thread that wakes for
        each token of each takes more from the model than it gives to anybody.
        """
        return min(self.num_running * PACE_SEC, MAX_PACE_SEC)

    @property
    def retry_after_sec(self) -> int:
        """When a place may be free, in whole seconds from 1 to 59 (clients cap what they honour at 60)."""
        mean = self._mean_duration()
        return _whole_sec(None if mean is None else mean / self.config.max_running)

    def _mean_duration(self) -> float | None:
        return sum(self._durations) / len(self._durations) if self._durations else None

    def _refused(self, error: ChatStreamError) -> None:
        if not isinstance(error, TooManyRequests):
            self.stats.record_refused(error.code)
            return
        self.stats.record_refused(error.reason)
        if error.reason == "queue_full":
            error.retry_after = self.retry_after_sec
        elif error.reason != "visitor_tokens":  # one of the visitor's own must end
            error.retry_after = _whole_sec(self._mean_duration())

    def check_idle(self) -> None:
        """The books must balance when nothing is in work; raises RuntimeError when they do not."""
        held = sum(len(worker.scheduler.running) for worker in self.workers)
        if held or self.num_running or self.num_waiting or self.num_accepted:
            raise RuntimeError(f"not idle: {self!r}, {held} slots held, {self.num_accepted} places taken")

    # -- the end of a request ------------------------------------------------------------------------

    def _complete(self, request: GenerationRequest, reason: FinishReason, error: str | None = None) -> None:
        """By whoever took it out of queue or slot; the rest is done elsewhere."""
        outcome = request.finish(reason, error)
        if request.started_at is not None:
            self._durations.append(outcome.total_sec - outcome.queue_sec)
        assert self._finisher is not None
        self._finisher.submit(request, outcome)

    def _make_queue(self) -> RequestQueue:
        config = self.config
        threads = range(config.num_of_generation_threads)
        return RequestQueue(
            config.num_places,
            [config.num_slots(i) for i in threads],
            [config.device(i) for i in threads],
            clock=self._clock,
        )

    def _make_pool(self) -> WorkerPool:
        return WorkerPool(
            self.config,
            self._queue,
            self._make_runner,
            self._complete,
            self.stats,
            hung_after_sec=lambda: self.hung_after_sec,
            clock=self._clock,
        )


def _whole_sec(seconds: float | None) -> int:
    return min(max(math.ceil(seconds or 1), 1), 59)
