"""Data of the status page: the engine's current state and the latencies of the last minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..engine.engine import Engine
from .health import engine_health

WINDOW_SEC = 300
PERCENTILES = (50, 90, 99)


def live_status(engine: Engine) -> dict[str, Any]:
    """Return the engine's state, totals since the process started, and recent latencies.

    Rates follow from two results: the difference of totals by the difference of `clock_sec`.
    """
    stats, recent = engine.stats, engine.stats.recent(WINDOW_SEC)
    steps = stats.steps
    return engine_health(engine) | {
        "clock_sec": round(stats.clock(), 3),
        "kv_cache_usage": round(engine.kv_usage, 4),
        "prompt_tokens": steps.num_prefilled,
        "cached_tokens": steps.num_reused,
        "generation_tokens": steps.num_generated,
        "finished": {reason.value: num for reason, num in stats.num_finished.items()},
        "refused": stats.num_refused,
        "replaced": stats.num_replaced,
        "window_sec": WINDOW_SEC,
        "latencies": {
            "queue": _percentiles(o.queue_sec for o in recent),
            "first_token": _percentiles(o.first_token_sec for o in recent),
            "per_token": _percentiles(1 / o.tokens_per_sec if o.tokens_per_sec else None for o in recent),
            "total": _percentiles(o.total_sec for o in recent),
        },
        "num_recent": len(recent),
    }


def _percentiles(values: Iterable[float | None]) -> list[float] | None:
    """Return nearest-rank percentiles in seconds; None if there are no values."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return [round(known[-(-percent * len(known) // 100) - 1], 4) for percent in PERCENTILES]
