"""Round: the measurements of one contender when all streams start at once."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Round:
    """Times and replies of one round."""

    total_sec: float  # from the first request to the last token, prompts included
    first_token_sec: list[float]  # per stream, since its own request
    replies: list[list[int]]  # token ids
    client_cpu_sec: float = 0.0  # of the client, which shares the machine
    gpu_busy: float | None = None  # utilization, 0 to 1

    @property
    def tokens_per_sec(self) -> float:
        return sum(map(len, self.replies)) / self.total_sec

    @property
    def median_first_token_sec(self) -> float:
        return statistics.median(self.first_token_sec)

    def check(self, streams: int, new_tokens: int) -> None:
        """Check that all replies have the requested length.

        :raises ValueError: one has not
        """
        lengths = [len(reply) for reply in self.replies]
        if lengths != [new_tokens] * streams:
            raise ValueError(f"{streams} replies of {new_tokens} tokens were asked for, got {lengths}")

    def same_share(self, other: Round) -> float:
        """Return the fraction of tokens that are equal at the same position."""
        pairs = [
            one == two
            for mine, theirs in zip(self.replies, other.replies, strict=True)
            for one, two in zip(mine, theirs, strict=True)
        ]
        return sum(pairs) / len(pairs)
