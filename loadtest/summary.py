"""Figures of one run: counts, goodput, and percentiles in milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy

from .record import MIXED_UP, REFUSED, RIGHT, Phase, Record

PERCENTILES = (50, 90, 95, 99)
REPLIES = ("ask", "regenerate")  # actions that request a reply
MAX_SHOWN_FAULTS = 10
MAX_LATE_SEC = 0.01  # p99 delay of the generator; above it figures are unreliable


def distribution(seconds: Iterable[float]) -> dict[str, float | int]:
    """Return mean, percentiles and maximum in milliseconds; only `num` if there are no values."""
    values = numpy.fromiter(seconds, float) * 1000
    if not len(values):
        return {"num": 0}
    marks = {f"p{p}": round(float(numpy.percentile(values, p)), 2) for p in PERCENTILES}
    return {
        "num": len(values),
        "mean": round(float(values.mean()), 2),
        **marks,
        "max": round(float(values.max()), 2),
    }


def summarise(phase: Phase, warm_up_sec: float) -> dict[str, Any]:
    """Summarise requests sent between warm-up and end; goodput counts tokens that arrived in that time."""
    since = phase.began_at + warm_up_sec
    records = [r for r in phase.records if since <= r.sent_at <= phase.ended_at]
    replies = [r for r in records if r.action in REPLIES and r.verdict == RIGHT]
    seconds = phase.ended_at - since
    worst_first = sorted(phase.faults, key=lambda record: record.verdict != MIXED_UP)
    all_right = [r for r in phase.records if r.action in REPLIES and r.verdict == RIGHT]
    return {
        "seconds": round(seconds, 2),
        "verdicts": dict(Counter(r.verdict for r in phase.records)),
        "actions": dict(sorted(Counter(f"{r.action} {r.verdict}" for r in phase.records).items())),
        "faults": [f"{r.verdict}: {r.detail}" for r in worst_first[:MAX_SHOWN_FAULTS]],
        "num_faults": len(phase.faults),
        "num_right": len(all_right),
        "asked_per_sec": round(sum(r.action in REPLIES for r in records) / seconds, 2),
        "replies_per_sec": round(sum(since <= r.ended_at <= phase.ended_at for r in all_right) / seconds, 3),
        "tokens_per_sec": round(
            sum(tokens_between(r, since, phase.ended_at) for r in all_right) / seconds, 2
        ),
        "QUEUE": distribution(r.started_at - r.sent_at for r in replies if r.started_at is not None),
        "TTFT": distribution(r.first_at - r.sent_at for r in replies if r.first_at is not None),
        "ITL": distribution(gap for r in replies for gap in r.gaps_sec),
        "E2E": distribution(r.ended_at - r.sent_at for r in replies),
        "REFUSED": distribution(r.ended_at - r.sent_at for r in records if r.verdict == REFUSED),
        "generator_cpu": round(100 * phase.cpu_sec / (phase.ended_at - phase.began_at), 1),  # % of a core
        "generator_late": distribution(phase.late_sec),
    }


def tokens_between(record: Record, since: float, until: float) -> float:
    """Return the reply's tokens in this time, in proportion to the words that arrived in it."""
    num_words = sum(words for _, words in record.arrivals)
    if not num_words:
        return 0.0
    share = sum(words for at, words in record.arrivals if since <= at <= until) / num_words
    return record.num_tokens * share


def is_spoiled(summary: dict[str, Any]) -> bool:
    """Return whether the generator was too often late for its figures to be reliable."""
    late: float = summary["generator_late"].get("p99", 0.0)
    return late > MAX_LATE_SEC * 1000


def words_per_sec(record: Record) -> float:
    """Return the rate between the first and the last arrival of text."""
    (first_at, first_words), *_, (last_at, _) = record.arrivals
    return (sum(words for _, words in record.arrivals) - first_words) / (last_at - first_at)


def delays_sec(record: Record, per_sec: float) -> list[float]:
    """Return the arrivals' delays against a schedule of `per_sec` words; the earliest one is on time."""
    num_words, lead = 0, []
    for at, words in record.arrivals:
        num_words += words
        lead.append(at - num_words / per_sec)
    on_time = min(lead, default=0.0)
    return [at - on_time for at in lead]
