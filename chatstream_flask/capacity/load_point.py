"""Statistics of the turns at one load, simulated or real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .simulation import TurnResult


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """Statistics at one load, with times in seconds; percentiles leave refused turns out."""

    turns_per_sec: float  # including refused ones
    num_turns: int
    refused_share: float
    tokens_per_sec: float  # sum over all replies
    queue_sec_p50: float
    queue_sec_p95: float
    first_token_sec_p50: float
    first_token_sec_p95: float
    first_token_sec_p99: float
    total_sec_p50: float
    total_sec_p95: float
    reply_tokens_per_sec_p50: float  # speed of one reply after its first token
    reply_tokens_per_sec_p5: float


def load_point(results: Sequence[TurnResult], since: float, until: float) -> LoadPoint:
    """Return the statistics of the turns that arrived from `since` to `until`.

    The tokens per second are those of the replies that ended in this time.
    """
    arrived = [result for result in results if since <= result.arrived_at < until]
    accepted = [result for result in arrived if not result.is_refused]
    ended = [result for result in results if since <= result.ended_at < until]
    queue, first = [a.queue_sec for a in accepted], [a.first_token_sec for a in accepted]
    total = [a.total_sec for a in accepted]
    speeds = [a.tokens_per_sec for a in accepted if a.reply_tokens > 1]
    return LoadPoint(
        turns_per_sec=len(arrived) / (until - since),
        num_turns=len(arrived),
        refused_share=(len(arrived) - len(accepted)) / max(len(arrived), 1),
        tokens_per_sec=sum(result.reply_tokens for result in ended) / (until - since),
        queue_sec_p50=percentile(queue, 50),
        queue_sec_p95=percentile(queue, 95),
        first_token_sec_p50=percentile(first, 50),
        first_token_sec_p95=percentile(first, 95),
        first_token_sec_p99=percentile(first, 99),
        total_sec_p50=percentile(total, 50),
        total_sec_p95=percentile(total, 95),
        reply_tokens_per_sec_p50=percentile(speeds, 50),
        reply_tokens_per_sec_p5=percentile(speeds, 5),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile; 0 if there are no values."""
    if not values:
        return 0.0
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]
