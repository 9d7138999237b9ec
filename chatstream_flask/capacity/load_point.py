"""LoadPoint: what users meet at one load, from the answers of a simulation or of a real server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .simulation import Answer


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """Seconds; percentiles are of the turns that were not refused."""

    turns_per_sec: float  # asked for
    num_turns: int
    refused_share: float
    tokens_per_sec: float  # of all replies together
    queue_sec_p50: float
    queue_sec_p95: float
    first_token_sec_p50: float
    first_token_sec_p95: float
    first_token_sec_p99: float
    total_sec_p50: float
    total_sec_p95: float
    reply_tokens_per_sec_p50: float  # of one reply, after its first token
    reply_tokens_per_sec_p5: float


def load_point(answers: Sequence[Answer], since: float, until: float) -> LoadPoint:
    """Of the turns asked for from `since` to `until`; the rate of tokens is of replies that ended then."""
    asked = [answer for answer in answers if since <= answer.asked_at < until]
    told = [answer for answer in asked if not answer.is_refused]
    ended = [answer for answer in answers if since <= answer.ended_at < until]
    queue, first = [a.queue_sec for a in told], [a.first_token_sec for a in told]
    total = [a.total_sec for a in told]
    speeds = [a.tokens_per_sec for a in told if a.reply_tokens > 1]
    return LoadPoint(
        turns_per_sec=len(asked) / (until - since),
        num_turns=len(asked),
        refused_share=(len(asked) - len(told)) / max(len(asked), 1),
        tokens_per_sec=sum(answer.reply_tokens for answer in ended) / (until - since),
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
    """The nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]
