"""LongPrompt: the effect of an arriving prompt of 4,000 tokens on running replies."""

from __future__ import annotations

import statistics
import time
from random import Random
from typing import Any

from .bare_engine import BareEngine, Reply
from .settings import Settings
from .token_ids import random_tokens

LONG_TOKENS = 4000
CONTEXT_LEN = 4096
PROMPT_TOKENS = 64
BEFORE_TOKENS = 30  # per running reply before the prompt arrives
START_SEC = 300


class LongPrompt:
    """An engine with running streams into which a long prompt arrives."""

    def __init__(self, settings: Settings) -> None:
        self._vocab_size = settings.shape.vocab_size
        self._settings = settings
        self._random = Random(0)
        self._engine: BareEngine | None = None

    def prepare(self, streams: int) -> None:
        self.close()
        self._engine = BareEngine(self._settings, streams + 1, CONTEXT_LEN)

    def alone(self) -> dict[str, Any]:
        """Measure the prompt on an idle engine; return its time, and the average time per prompt chunk."""
        reply = self._ask(LONG_TOKENS, 1)
        reply.wait()
        assert self._engine is not None
        first_token_sec = reply.times.at[0] - reply.asked_at
        num_chunks = -(-LONG_TOKENS // self._engine.engine.config.prefill_chunk_len)
        return {"alone_sec": first_token_sec, "chunk_sec": first_token_sec / num_chunks}

    def measure(self, streams: int) -> dict[str, Any]:
        assert self._engine is not None
        running = [self._ask(PROMPT_TOKENS, CONTEXT_LEN - PROMPT_TOKENS) for _ in range(streams)]
        wait_for_tokens(running, BEFORE_TOKENS)
        arrival = self._ask(LONG_TOKENS, 1)
        arrival.wait()
        wait_for_tokens(running, 1 + max(len(reply.times.at) for reply in running))
        for reply in running:
            self._engine.engine.cancel(reply.request)
        for reply in running:
            reply.wait()
        return gaps(running, arrival)

    def _ask(self, num_tokens: int, new_tokens: int) -> Reply:
        assert self._engine is not None
        return self._engine.ask(random_tokens(self._random, num_tokens, self._vocab_size), new_tokens)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None


def wait_for_tokens(replies: list[Reply], num_tokens: int) -> None:
    deadline = time.monotonic() + START_SEC
    while min(len(reply.times.at) for reply in replies) < num_tokens:
        if time.monotonic() > deadline or any(reply.request.outcome for reply in replies):
            raise RuntimeError("the running replies ended too early, or did not start")
        time.sleep(0.002)


def gaps(running: list[Reply], arrival: Reply) -> dict[str, Any]:
    """Return gaps in seconds; `gap_before_sec` starts when all streams were running."""
    all_running_at = max(reply.times.at[0] for reply in running)
    first_token_at = arrival.times.at[0]
    before = [g for r in running for g in r.times.gaps(all_running_at, arrival.asked_at)]
    longest = [max(r.times.gaps(arrival.asked_at, first_token_at)) for r in running]
    return {
        "gap_before_sec": statistics.median(before),
        "longest_gap_sec": max(longest),
        "longest_gap_of_median_stream_sec": statistics.median(longest),
        "first_token_sec": first_token_at - arrival.asked_at,
    }
