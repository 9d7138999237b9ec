"""Round: the measurements of one server with one workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .http_reply import HttpReply
from .workload import Workload


@dataclass(frozen=True, kw_only=True)
class Round:
    """Times and texts of the replies."""

    total_sec: float  # from the first request to the last byte, prompts included
    num_tokens: int
    first_token_sec: list[float]  # per request
    gap_sec: list[float]  # between arrivals of text within a reply
    texts: list[str]
    client_cpu_sec: float  # of the client, which shares the machine

    @classmethod
    def of(cls, streams: Sequence[Sequence[HttpReply]], workload: Workload, client_cpu_sec: float) -> Round:
        """Return the measurements of the replies of all streams.

        :raises ValueError: the server counts other numbers of tokens than were asked for
        :raises RuntimeError: a request failed
        """
        replies = [reply for of_stream in streams for reply in of_stream]
        for reply in replies:
            counted = reply.usage["prompt_tokens"], reply.usage["completion_tokens"]
            if counted != (asked := (workload.prompt_tokens, workload.new_tokens)):
                raise ValueError(f"prompt and reply have {counted} tokens, {asked} were asked for")
            if not reply.text_times:
                raise ValueError("a reply has no text")
        began = min(reply.asked_at for reply in replies)
        return cls(
            total_sec=max(reply.ended_at for reply in replies) - began,
            num_tokens=workload.new_tokens * len(replies),
            first_token_sec=[reply.text_times[0] - reply.asked_at for reply in replies],
            gap_sec=[gap for reply in replies for gap in reply.gaps],
            texts=[reply.text for reply in replies],
            client_cpu_sec=client_cpu_sec,
        )

    @property
    def tokens_per_sec(self) -> float:
        return self.num_tokens / self.total_sec

    @property
    def first_token_p50_sec(self) -> float:
        return percentile(self.first_token_sec, 50)

    @property
    def first_token_p95_sec(self) -> float:
        return percentile(self.first_token_sec, 95)

    @property
    def gap_p99_sec(self) -> float:
        return percentile(self.gap_sec, 99)

    @property
    def shown(self) -> str:
        return (
            f"{self.tokens_per_sec:.1f} tokens/s, first tokens after {self.first_token_p50_sec:.2f} and "
            f"{self.first_token_p95_sec:.2f} s, gaps of {1000 * self.gap_p99_sec:.0f} ms"
        )

    def same_share(self, other: Round) -> float:
        """Return the fraction of the texts that is equal up to their first difference."""
        pairs = list(zip(self.texts, other.texts, strict=True))
        equal = sum(_num_equal(mine, theirs) for mine, theirs in pairs)
        return equal / sum(max(len(mine), len(theirs)) for mine, theirs in pairs)


def _num_equal(one: str, two: str) -> int:
    shorter = min(len(one), len(two))
    return next((i for i in range(shorter) if one[i] != two[i]), shorter)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that is not below this share of the values; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0
