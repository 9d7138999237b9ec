"""Fakes at the lowest level: the clock, the runner, and an engine without threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from chatstream_flask.config import NO_LIMITS, SamplingParams, VisitorLimits
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reasoning import Piece
from chatstream_flask.engine.reply_text import TokenLogprob
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.request_queue import RequestQueue
from chatstream_flask.engine.runner import NewIds, Runner
from chatstream_flask.engine.scheduler import Scheduler
from chatstream_flask.engine.sequence import Chunk, Matcher, Sequence
from chatstream_flask.engine.worker import Worker
from chatstream_flask.errors import ChatStreamError

TIMEOUT = 10.0  # seconds; no wait in a test is longer
EOS_ID = 0


class FakeClock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def wait_until(is_so: Callable[[], bool]) -> None:
    """Poll for what other threads do without notifying anybody."""
    pause = threading.Event()
    end = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < end
        pause.wait(0.005)


def ask(text: str, **kwargs: object) -> GenerationRequest:
    """Return a request with the prompt `text`; keywords are those of SamplingParams and GenerationRequest."""
    names = SamplingParams.__dataclass_fields__
    params = SamplingParams(**{k: v for k, v in kwargs.items() if k in names})  # type: ignore[arg-type]
    rest = {k: v for k, v in kwargs.items() if k not in names}
    return GenerationRequest([ord(char) for char in text], params, **rest)  # type: ignore[arg-type]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


class CharDecoder:
    """Token ids are code points. Like a real decoder it accepts invalid ids."""

    def push(self, token_id: int) -> str:
        return chr(abs(token_id))

    def finish(self) -> str:
        return ""


class ListMatcher:
    """A grammar that allows exactly one text."""

    num_bytes = 4

    def __init__(self, text: str) -> None:
        self._rest = text

    def accept(self, token_id: int) -> bool:
        if not self._rest.startswith(chr(token_id)):
            raise ValueError(f"{chr(token_id)} where {self._rest} must come")
        self._rest = self._rest[1:]
        return not self._rest

    def write_mask(self, address: int, num_bytes: int) -> bool:
        raise NotImplementedError("for runners with a model")


class EchoRunner:
    """Replies with the prompt; keeps the token ids of each slot instead of keys and values.

    A step that would compute a token whose predecessors are not in its slot fails the test.
    """

    def __init__(self) -> None:
        self.eos_ids = frozenset({EOS_ID})
        self.keeps_prefixes = True
        self.cached: dict[int, list[int]] = {}  # slot -> token ids
        self.batches: list[int] = []  # rows of each decode step
        self.chunks: list[int] = []  # tokens of each prefill step
        self.copies: list[tuple[int, int, int]] = []

    def open(self) -> None: ...

    def next_id(self, sequence: Sequence) -> int:
        num_generated = len(sequence.token_ids) - sequence.num_prompt
        return [*sequence.request.prompt_ids, EOS_ID][num_generated]

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        self.chunks += [chunk.num_tokens for chunk in chunks]
        are_complete = [self._compute(sequence, num_tokens) for sequence, num_tokens in chunks]
        new_ids = [
            self._new_ids(chunk.sequence) if is_complete else []
            for chunk, is_complete in zip(chunks, are_complete, strict=True)
        ]
        return lambda: new_ids

    def catch_up(self, sequences: list[Sequence]) -> list[list[int]]:
        return [[] for _ in sequences]

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        self.batches.append(len(sequences))
        assert len({sequence.slot for sequence in sequences}) == len(sequences)
        assert all(self._compute(sequence, 1) for sequence in sequences)
        return [self._new_ids(sequence) for sequence in sequences]

    def copy_slot(self, source: int, target: int, length: int) -> None:
        self.copies.append((source, target, length))
        self.cached[target] = self.cached.get(source, [])[:length]

    def share_cores(self, num_busy: int) -> None: ...

    def swap_slots(self, one: int, other: int, length: int) -> None:
        self.copies.append((one, other, length))
        first, second = self.cached.get(one, []), self.cached.get(other, [])
        self.cached[one], self.cached[other] = second[:length], first[:length]

    def forget(self, sequence: Sequence) -> None: ...

    def text_decoder(self, request: GenerationRequest) -> CharDecoder:
        return CharDecoder()

    def matcher(self, grammar: str) -> Matcher:
        return ListMatcher(grammar)

    def close(self) -> None: ...

    def _new_ids(self, sequence: Sequence) -> list[int]:
        token_id = self.next_id(sequence)
        if sequence.params.num_logprobs is not None:
            sequence.logprobs.append(TokenLogprob(token_id, -token_id / 100, ()))
        return [token_id]

    def _compute(self, sequence: Sequence, num_tokens: int) -> bool:
        """Compute tokens; return whether nothing is left to compute."""
        done = sequence.num_cached
        assert done == 0 or self.cached[sequence.slot][:done] == sequence.token_ids[:done]
        self.cached[sequence.slot] = sequence.token_ids[: done + num_tokens]
        return done + num_tokens == len(sequence.token_ids)


class EndlessRunner(EchoRunner):
    """Generates "a" until it is stopped."""

    def next_id(self, sequence: Sequence) -> int:
        return ord("a")


class GatedRunner(EchoRunner):
    """Waits in its first decode step until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        assert self.gate.wait(TIMEOUT)
        return super().decode(sequences)


class Bench:
    """A queue and workers without threads: the test makes each step, and outcomes are published at once."""

    def __init__(
        self,
        *,
        slots: list[int],
        num_waiting: int = 5,
        chunk_len: int = 256,
        num_kept_slots: int | None = None,  # of each worker
        make_runner: Callable[[], Runner] = EchoRunner,
        clock: Callable[[], float] | None = None,  # of the queue; None: each call adds a second
    ) -> None:
        clock = clock or itertools.count().__next__
        self.queue = RequestQueue(sum(slots) + num_waiting, slots, clock=clock)
        self._make_runner = make_runner
        self._chunk_len = chunk_len
        self._num_kept_slots = num_kept_slots
        self.workers = [self._make_worker(i, num) for i, num in enumerate(slots)]
        self.replaced: list[Worker] = []
        self.ended: list[GenerationRequest] = []

    @property
    def running(self) -> list[GenerationRequest]:
        return [s.request for worker in self.workers for s in worker.scheduler.running]

    def submit(
        self,
        *requests: GenerationRequest,
        visitor: str | None = None,
        priority: int = 0,
        limits: VisitorLimits = NO_LIMITS,
    ) -> None:
        for request in requests:
            self.queue.put(request, self.queue.reserve(visitor, priority, limits))

    def complete(
        self, request: GenerationRequest, reason: FinishReason, error: str | ChatStreamError | None = None
    ) -> None:
        outcome = request.finish(reason, error)
        self.queue.release(request)
        request.publish(outcome)
        self.ended.append(request)

    def cancel(self, request: GenerationRequest) -> None:
        request.request_stop(FinishReason.CANCELLED)
        if self.queue.discard(request):
            self.complete(request, FinishReason.CANCELLED)

    def replace(self, worker: int) -> None:
        """Replace a worker, as the pool does with one that hangs."""
        hung = self.workers[worker]
        self.replaced.append(hung)
        for request in self.queue.retire(hung.index):
            self.complete(request, FinishReason.ERROR, "generation failed")
        self.workers[worker] = self._make_worker(self.queue.add_worker(hung.index), hung.scheduler.num_slots)
        self.queue.set_ready(self.workers[worker].index)

    def _make_worker(self, index: int, num_slots: int) -> Worker:
        scheduler = Scheduler(num_slots, self._chunk_len, self._num_kept_slots)
        return Worker(index, self.queue, self._make_runner(), scheduler, self.complete)

    def step(self, worker: int = 0) -> None:
        self.workers[worker].admit()
        self.workers[worker].step()
        self.workers[worker]._judge_runner()  # as its thread does

    def finish_all(self) -> None:
        for _ in range(10_000):
            if not self.running and not self.queue.num_waiting:
                return
            for worker in range(len(self.workers)):
                self.step(worker)
        raise AssertionError(f"never idle: {self.queue!r}")
