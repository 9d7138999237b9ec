"""Discrete-event simulation of one process: the real queue, workers and schedulers on a simulated clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ..config import EngineConfig, SamplingParams
from ..engine.outcome import FinishReason
from ..engine.request import GenerationRequest
from ..engine.request_queue import RequestQueue
from ..engine.runner import Runner
from ..engine.scheduler import Scheduler
from ..engine.worker import Worker
from ..errors import ChatStreamError, TooManyRequests
from ..mock.mock_runner import MockParams, MockRunner
from .profile import Profile
from .timed_runner import SimulatedClock, TimedRunner

MAX_CONVERSATION_LEN = 10_000_000  # tokens; keeps the token ids of two visitors apart


@dataclass(frozen=True, kw_only=True)
class TurnRequest:
    """One turn as a client requests it."""

    visitor: int
    prompt_tokens: int
    reply_tokens: int
    system_tokens: int = 0  # first tokens of the prompt, which are the same for all visitors
    num_dropped: int = 0  # tokens of the conversation that are dropped after those


@dataclass(frozen=True, kw_only=True)
class TurnResult:
    """Result of one turn; times are in seconds since the client's request."""

    arrived_at: float  # on the clock of the simulation or the client
    is_refused: bool = False
    reply_tokens: int = 0
    queue_sec: float = 0.0
    first_token_sec: float = 0.0
    total_sec: float = 0.0

    @property
    def ended_at(self) -> float:
        """Return the time at which the reply ended."""
        return self.arrived_at + self.total_sec

    @property
    def tokens_per_sec(self) -> float:
        """Return the speed of the reply after its first token."""
        return (self.reply_tokens - 1) / max(self.total_sec - self.first_token_sec, 1e-9)


class Simulation:
    """Simulated process, which runs in the calling thread.

    A step is computed when it starts, and moves the clock to its end. So other worker threads see the slots
    that it frees up to one step too early; new requests see them at the right time.
    """

    def __init__(self, profile: Profile, config: EngineConfig) -> None:
        self.clock = SimulatedClock()
        self.results: list[TurnResult] = []
        self.request_sec = profile.request_sec
        self._turn_sec = profile.turn_sec
        self._lost_sec = 0.0  # time taken by requests, which the next step will be delayed by
        self._is_mock = profile.mock_sec_per_token is not None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # orders events of the same time
        slots = [config.num_slots(i) for i in range(config.num_of_generation_threads)]
        self._queue = RequestQueue(config.num_places, slots, clock=self.clock)
        self._idle = set(range(len(slots)))  # indices of idle workers
        self._on_end: dict[GenerationRequest, Callable[[TurnResult], None]] = {}
        self._workers = [
            Worker(
                i,
                self._queue,
                self._make_runner(profile, i, len(slots)),
                Scheduler(num, config.prefill_chunk_len, config.num_kept_slots(i)),
                self._complete,
                clock=self.clock,
                prefill_priority=config.prefill_priority,
            )
            for i, num in enumerate(slots)
        ]
        for worker in self._workers:
            worker.runner.open()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Schedule an action."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def run(self) -> None:
        """Run all actions in the order of their times, until none is left."""
        while self._events:
            self.clock.now, _, action = heapq.heappop(self._events)
            action()

    def submit(self, turn: TurnRequest, on_end: Callable[[TurnResult], None] = lambda result: None) -> None:
        """Submit a turn now.

        :param on_end: called when the reply has ended or the turn was refused
        """
        if len(self._idle) < len(self._workers):
            self._lost_sec += self._turn_sec
        try:
            reservation = self._queue.reserve(str(turn.visitor))
        except TooManyRequests:
            result = TurnResult(arrived_at=self.clock.now, is_refused=True)
            self.results.append(result)
            on_end(result)
            return
        request = GenerationRequest(
            self._prompt_ids(turn),
            SamplingParams(max_new_tokens=turn.reply_tokens, seed=0),
            cache_owner=str(turn.visitor),
            num_shared=turn.system_tokens,
            clock=self.clock,
            timeout_sec=float("inf"),
        )
        self._on_end[request] = on_end
        self._queue.put(request, reservation)
        self._wake()

    def _prompt_ids(self, turn: TurnRequest) -> list[int]:
        """Return token ids that are the same in each turn, so that the prefix cache finds them."""
        if self._is_mock:
            return [ord("a")] * turn.prompt_tokens
        num_shared = min(turn.system_tokens, turn.prompt_tokens)
        first_id = (1 + turn.visitor) * MAX_CONVERSATION_LEN + turn.num_dropped
        return [*range(num_shared), *range(first_id + num_shared, first_id + turn.prompt_tokens)]

    def _wake(self) -> None:
        for worker in sorted(self._idle):
            self._idle.discard(worker)
            self.at(self.clock.now, lambda worker=worker: self._step(worker))  # type: ignore[misc]

    def _step(self, index: int) -> None:
        worker = self._workers[index]
        worker.admit()
        if not worker.scheduler.running:
            self._idle.add(index)
            return
        worker.step()
        if self._queue.num_waiting:
            self._wake()
        self.at(self.clock.now, lambda: self._step(index))

    def _take_lost_sec(self) -> float:
        lost, self._lost_sec = self._lost_sec, 0.0
        return lost

    def _complete(
        self, request: GenerationRequest, reason: FinishReason, error: str | ChatStreamError | None
    ) -> None:
        outcome = request.finish(reason, error)
        result = TurnResult(
            arrived_at=request.created_at,
            reply_tokens=outcome.completion_tokens,
            queue_sec=outcome.queue_sec,
            first_token_sec=(outcome.first_token_sec or 0.0) + self.request_sec,
            total_sec=outcome.total_sec + self.request_sec,
        )
        on_end = self._on_end.pop(request)
        self.at(self.clock.now, lambda: self._emit(request, result, on_end))

    def _emit(
        self, request: GenerationRequest, result: TurnResult, on_end: Callable[[TurnResult], None]
    ) -> None:
        self._queue.release(request)
        self.results.append(result)
        on_end(result)

    def _make_runner(self, profile: Profile, index: int, num_threads: int) -> Runner:
        if profile.mock_sec_per_token is not None:
            params = MockParams(type="long", time_per_token_sec=profile.mock_sec_per_token)
            return MockRunner(params, clock=self.clock, wait=self.clock.advance)
        others = [i for i in range(num_threads) if i != index]
        return TimedRunner(
            profile.costs_of(num_threads),
            self.clock,
            is_alone=lambda: bool(others) and not any(self._workers[i].scheduler.running for i in others),
            lost_sec=self._take_lost_sec,
        )
