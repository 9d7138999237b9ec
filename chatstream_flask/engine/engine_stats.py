"""Statistics of an engine: what became of its requests, for metrics and the status page."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from .histogram import FIRST_TOKEN_SEC, GAP_SEC, NUM_TOKENS, REQUEST_SEC, Histogram
from .outcome import FinishReason, Outcome
from .worker_stats import WorkerStats

NUM_RECENT = 2048  # outcomes that are kept, for percentiles over the last minutes


class HookStats(NamedTuple):
    """Calls of the app's functions of one kind."""

    num: int = 0
    total_sec: float = 0.0
    num_failed: int = 0


class EngineStats:
    """Counts since the process started; stopping and starting the engine resets nothing.

    A request is counted once, when it has ended. Each worker thread counts its steps in its own
    `WorkerStats`, one of `threads`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.threads: list[WorkerStats] = []  # of all worker threads, also of those that have ended
        self.total_sec = Histogram(REQUEST_SEC)
        self.prefill_sec = Histogram(FIRST_TOKEN_SEC)  # from the start of prefill to the first token
        self.decode_sec = Histogram(REQUEST_SEC)  # from the first token to the end
        self.sec_per_token = Histogram(GAP_SEC)  # mean over one reply, without its first token
        self.prompt_tokens = Histogram(NUM_TOKENS)
        self.generation_tokens = Histogram(NUM_TOKENS)
        self._lock = threading.Lock()  # guards everything but `threads`
        self._refused: Counter[str] = Counter()  # by code
        self._finished: Counter[FinishReason] = Counter()
        self._aborted: Counter[str] = Counter()  # by phase
        self._replaced: Counter[str] = Counter()  # worker threads, by fault
        self._hooks: dict[str, HookStats] = {}  # by kind
        self._recent: deque[tuple[float, Outcome]] = deque(maxlen=NUM_RECENT)

    def __repr__(self) -> str:
        return f"<EngineStats [{self._finished.total()} finished, {self._refused.total()} refused]>"

    # -- written by the engine -----------------------------------------------------------------------

    def record_refused(self, code: str) -> None:
        with self._lock:
            self._refused[code] += 1

    def record_replaced(self, fault: str) -> None:
        with self._lock:
            self._replaced[fault] += 1

    def record_hook(self, kind: str, seconds: float, *, is_failed: bool) -> None:
        """Count a call of a function of the app that takes part in replies."""
        with self._lock:
            num, total_sec, num_failed = self._hooks.get(kind, HookStats())
            self._hooks[kind] = HookStats(num + 1, total_sec + seconds, num_failed + is_failed)

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

    # -- read by any thread --------------------------------------------------------------------------

    @property
    def steps(self) -> WorkerStats:
        """Sum over all worker threads."""
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

    @property
    def hooks(self) -> dict[str, HookStats]:
        with self._lock:
            return dict(self._hooks)

    def recent(self, max_age_sec: float) -> list[Outcome]:
        """Return the outcomes of the last `max_age_sec` seconds, oldest first, at most `NUM_RECENT`."""
        since = self.clock() - max_age_sec
        with self._lock:
            return [outcome for at, outcome in self._recent if at >= since]
