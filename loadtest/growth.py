"""Slopes over a long run: what a server holds, and how long it takes to answer, must not grow."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

from .record import Phase
from .result import Goal

HOUR = 3600.0
SETTLING = 0.2  # of the run, at its beginning, is not looked at
ALLOWED = {  # growth over the run that the line of least squares may show
    "rss_kib": 16 * 1024.0,
    "threads": 4.0,
    "open_files": 4.0,
    "answer_ms": 100.0,
}


def growth_goals(server: str, points: Sequence[dict[str, float]], phase: Phase) -> list[Goal]:
    """Return a goal for each figure; none for a run with fewer than three samples.

    :param points: samples of what the server held, each with its time "at" in seconds
    """
    goals = []
    for name, most in ALLOWED.items():
        series = _answers(phase) if name == "answer_ms" else [(point["at"], point[name]) for point in points]
        series = _settled(series)
        if len(series) < 3:
            continue
        times, values = zip(*series, strict=True)
        slope = linear_regression(times, values).slope
        growth = slope * (max(times) - min(times))
        value = f"{slope * HOUR:+.3g} an hour, {growth:+.3g} in all"
        goals.append(Goal(f"{server}: slope of {name}", value, f"<= {most:g} in all", growth <= most))
    return goals


def _settled(series: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a series without its beginning, in which connections are made and buffers fill."""
    times = [at for at, _ in series] or [0.0]
    begins_at = min(times) + SETTLING * (max(times) - min(times))
    return [(at, value) for at, value in series if at >= begins_at]


def _answers(phase: Phase) -> list[tuple[float, float]]:
    """Return when requests were sent, and after how many ms their answer or refusal began."""
    return [
        (record.sent_at, 1000 * (record.headers_at - record.sent_at))
        for record in phase.records
        if record.headers_at is not None
    ]
