"""Counters of one worker thread, updated in each step without a lock."""

from __future__ import annotations

from collections import Counter

from .histogram import FIRST_TOKEN_SEC, GAP_SEC, REQUEST_SEC, SHORT_SEC, Histogram
from .sequence import Sequence

SHARED = "shared"
REUSED_KINDS = ("conversation", "key", SHARED)  # who may reuse the tokens: one owner of this kind, or all


class WorkerStats:
    """Written by its worker thread only; any thread may read it."""

    def __init__(self) -> None:
        self.num_prefilled = 0  # prompt tokens that were computed
        self.reused = Counter(dict.fromkeys(REUSED_KINDS, 0))  # prompt tokens from the prefix cache
        self.num_generated = 0  # tokens
        self.num_drafted = 0  # draft tokens
        self.num_accepted = 0  # draft tokens that were right
        self.queue_sec = Histogram((*SHORT_SEC, 0.01, 0.05, 0.1, *REQUEST_SEC))
        self.first_token_sec = Histogram(FIRST_TOKEN_SEC)  # since the request arrived
        self.gap_sec = Histogram(GAP_SEC)  # between two tokens of a reply
        self.step_sec = Histogram(GAP_SEC)

    def __repr__(self) -> str:
        return f"<WorkerStats [{self.step_sec.num} steps, {self.num_generated} tokens]>"

    @property
    def num_reused(self) -> int:
        """Prompt tokens that were taken from the prefix cache."""
        return self.reused.total()

    def record_tokens(self, sequence: Sequence, now: float) -> None:
        """Record that a step generated tokens of this sequence."""
        if sequence.last_token_at is None:
            self.first_token_sec.add(now - sequence.request.queued_at)
        else:
            self.gap_sec.add(now - sequence.last_token_at)
        sequence.last_token_at = now

    def record_drafts(self, sequence: Sequence, num_new: int) -> None:
        """Record the drafts of a step that generated `num_new` tokens: the accepted drafts and one more."""
        if sequence.drafts and num_new:
            self.num_drafted += len(sequence.drafts)
            self.num_accepted += num_new - 1

    def merge(self, other: WorkerStats) -> None:
        """Add the counts of another thread."""
        self.num_prefilled += other.num_prefilled
        self.reused.update(other.reused)
        self.num_generated += other.num_generated
        self.num_drafted += other.num_drafted
        self.num_accepted += other.num_accepted
        self.queue_sec.merge(other.queue_sec)
        self.first_token_sec.merge(other.first_token_sec)
        self.gap_sec.merge(other.gap_sec)
        self.step_sec.merge(other.step_sec)
