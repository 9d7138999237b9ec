"""What became of the requests of an engine, for metrics, the status page and whoever else watches."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from .histogram import FIRST_TOKEN_SEC, GAP_SEC, NUM_TOKENS, REQUEST_SEC, Histogram
from .outcome import FinishReason, Outcome
from .worker_stats import WorkerStats

NUM_RECENT = 2048  # outcomes kept for percentiles over the last minutes


class EngineStats:
    """Since the process began, over stops and starts; each request is counted once, when it has ended.

    `refused` and `finished` come from many threads; what a thread does in its steps is in `threads`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.threads: list[WorkerStats] = []  # of every generation thread there was
        self.total_sec = Histogram(REQUEST_SEC)
        self.prefill_sec = Histogram(FIRST_TOKEN_SEC)  # from a slot to the first token
        self.decode_sec = Histogram(REQUEST_SEC)  # from the first token to the end
        self.sec_per_token = Histogram(GAP_SEC)  # mean of a reply, after its first token
        self.prompt_tokens = Histogram(NUM_TOKENS)
        self.generation_tokens = Histogram(NUM_TOKENS)
        self._lock = threading.Lock()  # guards everything but `threads`
        self._refused: Counter[str] = Counter()  # by code
        self._finished: Counter[FinishReason] = Counter()
        self._aborted: Counter[str] = Counter()  # by phase
        self._replaced: Counter[str] = Counter()  # generation threads, by what was wrong
        self._recent: deque[tuple[float, Outcome]] = deque(maxlen=NUM_RECENT)

    def __repr__(self) -> str:
        return f"<EngineStats [{self._finished.total()} finished, {self._refused.total()} refused]>"

    # -- told by the engine ----------------------------------------------------------------------------

    def record_refused(self, code: str) -> None:
        with self._lock:
            self._refused[code] += 1

    def record_replaced(self, fault: str) -> None:
        with self._lock:
            self._replaced[fault] += 1

    def record_finished(self, outcome: Outcome) -> None:
        with self._lock:
            self._finished[outcome.finish_reason] += 1
            if not outcome.is_success and outcome.finish_reason is not FinishReason.ERROR:
                self._aborted[outcome.phase] += 1
            self._recent.append((self.clock(), outcome))
            self.prompt_tokens.add(outcome.prompt_tokens)
            self.generation_tokens.add(outcome.completion_tokens)
            self.total_sec.add(outcome.total_sec)
            if outcome.first_token_sec is not None:
                self.prefill_sec.add(outcome.first_token_sec - outcome.queue_sec)
                self.decode_sec.add(outcome.total_sec - outcome.first_token_sec)
            if rate := outcome.tokens_per_sec:
                self.sec_per_token.add(1 / rate)

    # -- asked by whoever watches ------------------------------------------------------------------------

    @property
    def steps(self) -> WorkerStats:
        """Of all threads together."""
        result = WorkerStats()
        for thread in list(self.threads):
            result.merge(thread)
        return result

    @property
    def num_refused(self) -> dict[str, int]:
        with self._lock:
            return dict(self._refused)

    @property
    def num_finished(self) -> dict[FinishReason, int]:
        with self._lock:
            return dict(self._finished)

    @property
    def num_aborted(self) -> dict[str, int]:
        with self._lock:
            return dict(self._aborted)

    @property
    def num_replaced(self) -> dict[str, int]:
        with self._lock:
            return dict(self._replaced)

    def recent(self, max_age_sec: float) -> list[Outcome]:
        """Of the newest requests, at most `NUM_RECENT`, oldest first."""
        since = self.clock() - max_age_sec
        with self._lock:
            return [outcome for at, outcome in self._recent if at >= since]
