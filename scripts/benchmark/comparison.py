"""Comparison of contenders over several rounds: medians, and the speed of one relative to each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .round import Round


def compare(rounds: Mapping[str, Sequence[Round]], subject: str) -> dict[str, Any]:
    """Return a summary per contender; ratios are computed per repeat (subject / other), then the median."""
    return {name: _summary(of_one, rounds.get(subject, ())) for name, of_one in rounds.items() if of_one}


def _summary(rounds: Sequence[Round], of_subject: Sequence[Round]) -> dict[str, Any]:
    summary = {
        "tokens_per_s": round(statistics.median(r.tokens_per_sec for r in rounds), 1),
        "first_token_s": round(statistics.median(r.median_first_token_sec for r in rounds), 4),
        "all_tokens_per_s": [round(r.tokens_per_sec, 1) for r in rounds],
    }
    if pairs := list(zip(of_subject, rounds, strict=False)):
        ratio = statistics.median(mine.tokens_per_sec / theirs.tokens_per_sec for mine, theirs in pairs)
        summary["ratio"] = round(ratio, 2)
        summary["same_tokens"] = round(statistics.mean(m.same_share(t) for m, t in pairs), 3)
    if any(r.client_cpu_sec for r in rounds):
        shares = [r.client_cpu_sec / r.total_sec for r in rounds]
        summary["client_cpu"] = round(statistics.median(shares), 3)
    busy = [r.gpu_busy for r in rounds if r.gpu_busy is not None]
    if busy:
        summary["gpu_busy"] = round(statistics.median(busy), 2)
    return summary
