"""Round: what one contender did when all streams asked at once."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Round:
    total_sec: float  # from the first request to the last token, prompts included
    first_token_sec: list[float]  # of each stream, from its own request
    replies: list[list[int]]  # token ids
    client_cpu_sec: float = 0.0  # of a client that shares the machine
    gpu_busy: float | None = None  # share of the time

    @property
    def tokens_per_sec(self) -> float:
        return sum(map(len, self.replies)) / self.total_sec

    @property
    def median_first_token_sec(self) -> float:
        return statistics.median(self.first_token_sec)

    def check(self, streams: int, new_tokens: int) -> None:
        """Raises ValueError for a reply that has not exactly the tokens that were asked for."""
        lengths = [len(reply) for reply in self.replies]
        if lengths != [new_tokens] * streams:
            raise ValueError(f"{streams} replies of {new_tokens} tokens were asked for, got {lengths}")

    def same_share(self, other: Round) -> float:
        """The share of tokens that are the same in both, at the same place."""
        pairs = [
            one == two
            for mine, theirs in zip(self.replies, other.replies, strict=True)
            for one, two in zip(mine, theirs, strict=True)
        ]
        return sum(pairs) / len(pairs)
