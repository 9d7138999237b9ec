"""Comparison of servers over several rounds: medians, and ratios of the same round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from .entrant import Entrant
from .round import Round


def compare(rounds: Mapping[Entrant, Sequence[Round]]) -> dict[str, dict[str, Any]]:
    """Return a summary per entrant.

    A ratio is this project's speed over the other's in the same round; the median of the rounds is given.
    """
    played = [entrant for entrant, of_one in rounds.items() if of_one]
    return {
        entrant.title: _summary(rounds[entrant], rounds[rival] if (rival := entrant.rival(played)) else ())
        for entrant in played
    }


def _summary(rounds: Sequence[Round], of_rival: Sequence[Round]) -> dict[str, Any]:
    summary = {
        "tokens_per_s": round(median(r.tokens_per_sec for r in rounds), 1),
        "first_token_p50_s": round(median(r.first_token_p50_sec for r in rounds), 3),
        "first_token_p95_s": round(median(r.first_token_p95_sec for r in rounds), 3),
        "gap_p99_ms": round(1000 * median(r.gap_p99_sec for r in rounds), 1),
        "client_cpu": round(median(r.client_cpu_sec / r.total_sec for r in rounds), 3),
        "all_tokens_per_s": [round(r.tokens_per_sec, 1) for r in rounds],
    }
    if pairs := list(zip(of_rival, rounds, strict=False)):
        summary["ratio"] = round(median(ours.tokens_per_sec / r.tokens_per_sec for ours, r in pairs), 2)
        summary["same_text"] = round(median(ours.same_share(r) for ours, r in pairs), 3)
    return summary
