"""What an engine has from one start to the next: a queue, worker threads, and a finisher."""

from __future__ import annotations

from collections.abc import Callable

from ..config import EngineConfig
from ..errors import ChatStreamError
from .engine_stats import EngineStats
from .finisher import Finisher
from .outcome import FinishReason
from .request import GenerationRequest
from .request_queue import RequestQueue
from .runner import Runner
from .shared_request_queue import SharedRequestQueue
from .sharing import Sharing
from .wait_estimate import WaitEstimate
from .worker_pool import WorkerPool


class EngineRun:
    """One run of an engine; it has a queue from the beginning, and threads between `start` and `stop`."""

    def __init__(
        self,
        config: EngineConfig,
        make_runner: Callable[[int], Runner],
        stats: EngineStats,
        wait_estimate: WaitEstimate,
        *,
        hung_after_sec: Callable[[], float],
        clock: Callable[[], float],
        sharing: Sharing | None = None,
    ) -> None:
        self._config = config
        self._make_runner = make_runner
        self._stats = stats
        self._wait_estimate = wait_estimate
        self._hung_after_sec = hung_after_sec
        self._clock = clock
        self._sharing = sharing
        threads = range(config.num_of_generation_threads)
        places = (
            config.num_places,
            [config.num_slots(i) for i in threads],
            [config.device(i) for i in threads],
        )
        api_capacity = None if config.max_api_queue_size is None else config.num_api_places
        self.queue = (
            RequestQueue(*places, api_capacity=api_capacity, clock=clock)
            if sharing is None
            else SharedRequestQueue(sharing, *places, api_capacity=api_capacity, clock=clock)
        )
        self.pool: WorkerPool | None = None
        self._finisher: Finisher | None = None

    def start(self) -> None:
        """Start the threads; if one cannot open, end them all and raise its error."""
        self._finisher = Finisher(
            self._config.max_running,
            self._config.num_all_places,
            self.queue.release,
            self.queue.hand_over,
            self._stats.record_finished,
        )
        self.pool = WorkerPool(
            self._config,
            self.queue,
            self._make_runner,
            self.complete,
            self._stats,
            hung_after_sec=self._hung_after_sec,
            clock=self._clock,
        )
        try:
            self.pool.start()
        except BaseException:
            self.stop(timeout=10.0)
            raise
        if self._sharing is not None and isinstance(self.queue, SharedRequestQueue):
            self._sharing.start(self.queue, self._config.max_running, self._config.max_waiting)

    def stop(self, timeout: float) -> None:
        """End all requests with SHUTDOWN and all threads; wait up to `timeout` seconds for the threads."""
        for request in self.queue.close():
            self.complete(request, FinishReason.SHUTDOWN)
        for request in self.queue.requests():
            request.request_stop(FinishReason.SHUTDOWN)
        all_ended = self.pool is None or self.pool.stop(timeout)
        if self._finisher is not None:
            self._finisher.close(wait=all_ended)
        if self._sharing is not None:
            self._sharing.stop()
        self.pool = None

    def complete(
        self, request: GenerationRequest, reason: FinishReason, error: str | ChatStreamError | None = None
    ) -> None:
        """Finish a request that has left the queue or its slot; called by whoever removed it there."""
        outcome = request.finish(reason, error)
        if request.started_at is not None:
            self._wait_estimate.add(outcome.total_sec - outcome.queue_sec)
        assert self._finisher is not None
        self._finisher.submit(request, outcome)
