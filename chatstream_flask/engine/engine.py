"""The engine: one queue, a fixed pool of worker threads, and the end of every request."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from ..config import NO_LIMITS, EngineConfig, VisitorLimits
from ..errors import (
    ChatStreamError,
    EngineBroken,
    EngineFailing,
    EngineUnavailable,
    NotAccepting,
    TooManyRequests,
)
from .engine_run import EngineRun
from .engine_stats import EngineStats
from .outcome import FinishReason
from .places import Reservation
from .request import GenerationRequest, Status
from .request_queue import RequestQueue
from .runner import Runner
from .sharing import Sharing
from .upstream_stats import UpstreamStats
from .wait_estimate import WaitEstimate
from .worker import Worker

FLUSH_SEC = 0.01  # interval between two chunks of text to one client, for each running reply
MAX_FLUSH_SEC = 0.04  # 25 chunks per second look like one continuous stream


class Engine:
    """Runs generation requests: `reserve` a place, `submit` a request with it, read it, maybe `cancel` it.

    The engine starts on first use, in the process that uses it: after a fork the child starts its own
    threads. Starting twice is harmless.
    """

    def __init__(
        self,
        config: EngineConfig,
        make_runner: Callable[[int], Runner],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an engine that is not started.

        :param make_runner: makes the runner of a worker thread from its position, 0 to the number of threads
        :param clock: monotonic time in seconds
        """
        self.config = config
        self.stats = EngineStats(clock)
        self.hung_after_sec = 30.0  # a busy worker thread that makes no step for this long is replaced
        self.sharing: Sharing | None = None  # set before the start, for an engine that has others beside it
        self.upstreams: Callable[[], Sequence[UpstreamStats]] = lambda: ()  # servers that generate instead
        self.is_stopped = False  # by `stop`; only an explicit `start` starts it again
        self.is_draining = False  # by `begin_drain`; accepts nothing until `stop` and `start`
        self._clock = clock
        self._make_runner = make_runner
        self._wait_estimate = WaitEstimate(config.max_running)
        self._lifecycle = threading.Lock()  # held while starting and stopping
        self._pid: int | None = None  # of the process that started the threads
        self._run = self._make_run()
        stop = weakref.WeakMethod(self.stop)
        atexit.register(lambda: (method := stop()) and method(timeout=1.0))

    def __repr__(self) -> str:
        return (
            f"<Engine [{self.num_running}/{self.config.max_running} running, "
            f"{self.num_waiting}/{self.config.max_waiting} queued]>"
        )

    @property
    def _queue(self) -> RequestQueue:
        return self._run.queue

    @property
    def num_running(self) -> int:
        return self._queue.num_running

    @property
    def num_waiting(self) -> int:
        return self._queue.num_waiting

    @property
    def num_accepted(self) -> int:
        """Places that are taken: reserved, waiting, running, or not yet stored."""
        return self._queue.num_accepted

    @property
    def num_free(self) -> int:
        """Places that a request of the chat may take now."""
        return self._queue.num_free()

    @property
    def is_started(self) -> bool:
        """Whether the worker threads run in this process."""
        return self._pid == os.getpid()

    @property
    def is_started_elsewhere(self) -> bool:
        """Whether the worker threads run in the process that this one was forked from."""
        return self._pid is not None and self._pid != os.getpid()

    @property
    def workers(self) -> list[Worker]:
        pool = self._run.pool
        return [] if pool is None else pool.workers

    @property
    def broken(self) -> str | None:
        """Why nothing can be generated until the engine is stopped and started; None if it works."""
        pool = self._run.pool
        return None if pool is None else pool.broken

    @property
    def is_failing(self) -> bool:
        """Whether nothing is accepted until worker threads that fail at each step have been replaced."""
        pool = self._run.pool
        return pool is not None and pool.is_failing

    @property
    def is_cut_off(self) -> bool:
        """Whether other servers generate for this process, and none of them is up."""
        upstreams = self.upstreams()
        return bool(upstreams) and not any(upstream.is_up for upstream in upstreams)

    def fault_of(self, worker: Worker) -> str | None:
        """Return why the watchdog is about to replace one of `workers`; None if nothing is wrong."""
        pool = self._run.pool
        return None if pool is None else pool.watchdog.fault_of(worker)

    @property
    def kv_usage(self) -> float:
        """Fraction of the KV cache positions of `max_running` slots that running replies use, 0 to 1."""
        used = sum(s.num_cached for worker in self.workers for s in list(worker.scheduler.running))
        return used / (self.config.max_running * self.config.context_len)

    # -- lifecycle -----------------------------------------------------------------------------------

    def start(self, *, again: bool = True) -> None:
        """Start the worker threads if they do not run in this process.

        :param again: also start after `stop` or `begin_drain`
        :raises ConfigError: a runner cannot work with these settings
        :raises UnsupportedModel: a runner cannot work with its model
        """
        if self.is_started:
            return
        with self._lifecycle:
            if self.is_started or ((self.is_stopped or self.is_draining) and not again):
                return
            self._run = self._make_run()
            self._run.start()
            self._pid = os.getpid()
            self.is_stopped = self.is_draining = False

    def begin_drain(self) -> None:
        """Accept nothing new, even if not started yet; requests that were accepted go on. Idempotent."""
        self.is_draining = True
        with self._lifecycle:
            self._queue.refuse_new()

    def drain(self, timeout: float) -> bool:
        """Accept nothing new and wait up to `timeout` seconds; return whether all requests have finished."""
        self.begin_drain()
        return self._queue.wait_until_empty(timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """End all requests, each with its outcome, and all threads. Idempotent.

        :param timeout: seconds to wait for the threads; those that take longer are left behind
        """
        with self._lifecycle:
            if not self.is_started:
                return
            self._run.stop(timeout)
            self._pid = None
            self.is_stopped = True

    def check_idle(self) -> None:
        """Raise RuntimeError if anything is running, waiting or reserved: for tests, when all is done."""
        num_held = sum(len(worker.scheduler.running) for worker in self.workers)
        if num_held or self.num_running or self.num_waiting or self.num_accepted:
            raise RuntimeError(f"not idle: {self!r}, {num_held} slots held, {self.num_accepted} places taken")

    # -- requests ------------------------------------------------------------------------------------

    def reserve(
        self, visitor: str | None = None, priority: int = 0, limits: VisitorLimits = NO_LIMITS
    ) -> Reservation:
        """Reserve a place for one request; parameters and errors are those of `reserve_all`."""
        return self.reserve_all(1, visitor, priority, limits)[0]

    def reserve_all(
        self,
        num: int,
        visitor: str | None = None,
        priority: int = 0,
        limits: VisitorLimits = NO_LIMITS,
        *,
        is_api: bool = False,
    ) -> list[Reservation]:
        """Reserve places for `num` requests or none; close each that no request is submitted with.

        :param visitor: name of the visitor; visitors are served in turn. None: anonymous and without limits
        :param priority: higher priorities are served first, but not for ever
        :param limits: limits of this visitor from now on
        :param is_api: whether they are requests of /v1, which may have a queue size of their own
        :raises TooManyRequests: there are not enough places, or not for this visitor
        :raises NotAccepting: the engine is stopping or stopped
        :raises EngineUnavailable: no server that generates for this process is up
        :raises EngineFailing: the model fails at each step, and its worker threads are being replaced
        :raises EngineBroken: a worker thread could not be replaced
        """
        try:
            if self.broken:
                raise EngineBroken("nothing can be generated any more; the server has to be restarted")
            if self.is_cut_off:
                raise EngineUnavailable("no engine is available; try again later")
            if self.is_failing:
                raise EngineFailing("the model fails at each step and is being restarted; try again later")
            reservations = self._queue.reserve_all(num, visitor, priority, limits, is_api=is_api)
            self._share(reservations)
            return reservations
        except ChatStreamError as error:
            self._record_refused(error)
            raise

    def submit(self, request: GenerationRequest, reservation: Reservation) -> None:
        """Put a request into the queue.

        :raises TooManyRequests: the visitor's tokens have been used up since the reservation
        :raises NotAccepting: the engine is not started, or stopping
        """
        if not self.is_started:
            raise NotAccepting("the engine is not started")
        try:
            if self.sharing is not None:
                num_tokens = len(request.prompt_ids) + request.max_generated
                self.sharing.submit(reservation.place, num_tokens)
                reservation.num_shared_tokens = num_tokens
            self._queue.put(request, reservation)
        except ChatStreamError as error:
            self._record_refused(error)
            raise

    def cancel(self, request: GenerationRequest, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End a request: a waiting one now, a running one at the next step of its worker thread."""
        request.request_stop(reason)
        if self._queue.discard(request):
            self._run.complete(request, reason)

    def position(self, request: GenerationRequest) -> int:
        """Return 1 for the next request to run, 0 for one that is not waiting."""
        return self._queue.position(request) if request.status is Status.WAITING else 0

    def queue_place(self, request: GenerationRequest) -> tuple[int, float | None] | None:
        """Return the position of a waiting request and the estimated seconds until it runs, else None.

        The position is that among the requests of all engines that share turns.
        """
        position = self.position(request)
        if not position:
            return None
        return self._queue.shared_position(request) or position, self.eta_sec(position)

    def eta_sec(self, position: int) -> float | None:
        """Estimate the seconds until the request at this position runs; None before the first reply."""
        return self._wait_estimate.sec_until_start(
            position,
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            num_startable=self._queue.num_startable,
        )

    @property
    def flush_interval_sec(self) -> float:
        """How long a reader should collect text before it sends it to its client.

        With many replies, threads that wake up for every token would slow the model down.
        """
        return min(self.num_running * FLUSH_SEC, MAX_FLUSH_SEC)

    @property
    def retry_after_sec(self) -> int:
        """When a place may become free: whole seconds, 1 to 59."""
        return self._wait_estimate.retry_after_sec

    def _share(self, reservations: list[Reservation]) -> None:
        """Take the places in all engines that share limits; give them back if there are not enough."""
        if self.sharing is None:
            return
        try:
            self.sharing.reserve([reservation.place for reservation in reservations])
        except BaseException:
            for reservation in reservations:
                reservation.close()
            raise
        for reservation in reservations:
            reservation.is_shared = True

    def _record_refused(self, error: ChatStreamError) -> None:
        """Count a refusal and, where that is not known yet, estimate when to try again."""
        if not isinstance(error, TooManyRequests):
            self.stats.record_refused(error.code)
            return
        self.stats.record_refused(error.reason)
        if error.reason == "queue_full":
            error.retry_after = self._wait_estimate.retry_after_sec
        elif error.reason != "visitor_tokens":
            error.retry_after = self._wait_estimate.visitor_retry_after_sec

    def _make_run(self) -> EngineRun:
        return EngineRun(
            self.config,
            self._make_runner,
            self.stats,
            self._wait_estimate,
            hung_after_sec=lambda: self.hung_after_sec,
            clock=self._clock,
            sharing=self.sharing,
        )
