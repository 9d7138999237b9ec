"""Simulation: the real queue, workers and schedulers on a clock that jumps from event to event."""

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
from ..errors import TooManyRequests
from ..mock.mock_runner import MockParams, MockRunner
from .profile import Profile
from .timed_runner import SimulatedClock, TimedRunner

MAX_CONVERSATION_LEN = 10_000_000  # tokens: those of two visitors never have the same id


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One turn: what a client asks for."""

    visitor: int
    prompt_tokens: int
    reply_tokens: int
    system_tokens: int = 0  # the first of the prompt, the same for everybody
    num_dropped: int = 0  # tokens of the conversation that are left out after those


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of it; seconds from the client's request."""

    asked_at: float
    is_refused: bool = False
    reply_tokens: int = 0
    queue_sec: float = 0.0
    first_token_sec: float = 0.0
    total_sec: float = 0.0

    @property
    def ended_at(self) -> float:
        return self.asked_at + self.total_sec

    @property
    def tokens_per_sec(self) -> float:
        """After the first token."""
        return (self.reply_tokens - 1) / max(self.total_sec - self.first_token_sec, 1e-9)


class Simulation:
    """One process, in one thread. A step is made when it begins and moves the clock to its end.

    So what it frees is seen by the other threads up to one step too early, and by new requests in time.
    """

    def __init__(self, profile: Profile, config: EngineConfig) -> None:
        self.clock = SimulatedClock()
        self.answers: list[Answer] = []
        self.request_sec = profile.request_sec
        self._turn_sec = profile.turn_sec
        self._lost_sec = 0.0  # to requests, and not yet to a step
        self._is_mock = profile.mock_sec_per_token is not None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # of events at the same time
        slots = [config.num_slots(i) for i in range(config.num_of_generation_threads)]
        self._queue = RequestQueue(config.num_places, slots, clock=self.clock)
        self._idle = set(range(len(slots)))  # threads
        self._on_end: dict[GenerationRequest, Callable[[Answer], None]] = {}
        self._workers = [
            Worker(
                i,
                self._queue,
                self._make_runner(profile, i, len(slots)),
                Scheduler(num, config.prefill_chunk_len, config.num_kept_slots(i)),
                self._complete,
                clock=self.clock,
            )
            for i, num in enumerate(slots)
        ]
        for worker in self._workers:
            worker.runner.open()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.clock.now, _, action = heapq.heappop(self._events)
            action()

    def ask(self, ask: Ask, on_end: Callable[[Answer], None] = lambda answer: None) -> None:
        if len(self._idle) < len(self._workers):
            self._lost_sec += self._turn_sec
        try:
            place = self._queue.reserve(str(ask.visitor))
        except TooManyRequests:
            answer = Answer(asked_at=self.clock.now, is_refused=True)
            self.answers.append(answer)
            on_end(answer)
            return
        request = GenerationRequest(
            self._prompt_ids(ask),
            SamplingParams(max_new_tokens=ask.reply_tokens, seed=0),
            cache_owner=str(ask.visitor),
            num_shared=ask.system_tokens,
            clock=self.clock,
            timeout_sec=float("inf"),
        )
        request.place = place
        self._on_end[request] = on_end
        self._queue.put(request, place)
        self._wake()

    def _prompt_ids(self, ask: Ask) -> list[int]:
        """Token i of a conversation is always the same, so that keys and values are found again."""
        if self._is_mock:
            return [ord("a")] * ask.prompt_tokens
        num_shared = min(ask.system_tokens, ask.prompt_tokens)
        first_id = (1 + ask.visitor) * MAX_CONVERSATION_LEN + ask.num_dropped
        return [*range(num_shared), *range(first_id + num_shared, first_id + ask.prompt_tokens)]

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

    def _complete(self, request: GenerationRequest, reason: FinishReason, error: str | None) -> None:
        outcome = request.finish(reason, error)
        answer = Answer(
            asked_at=request.created_at,
            reply_tokens=outcome.completion_tokens,
            queue_sec=outcome.queue_sec,
            first_token_sec=(outcome.first_token_sec or 0.0) + self.request_sec,
            total_sec=outcome.total_sec + self.request_sec,
        )
        on_end = self._on_end.pop(request)
        self.at(self.clock.now, lambda: self._emit(request, answer, on_end))

    def _emit(self, request: GenerationRequest, answer: Answer, on_end: Callable[[Answer], None]) -> None:
        assert request.place is not None
        request.place.close()
        self.answers.append(answer)
        on_end(answer)

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
