"""Health of the engine: whether it can take requests, and the state of its worker threads."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from ..engine.engine import Engine
from ..engine.worker import Worker
from ..engine.worker_pool import is_failing

READY = "ready"


def readiness(engine: Engine) -> str:
    """Return READY, or one word for the reason why the engine cannot take requests."""
    if engine.broken is not None:
        return "broken"
    if engine.is_draining:
        return "draining"
    if engine.is_stopped:
        return "stopped"
    if not engine.is_started:
        return "not_started"
    if engine.is_cut_off:
        return "no_engine"
    workers = engine.workers
    if any(is_failing(worker) for worker in workers):
        return "thread_failing"
    if any(engine.fault_of(worker) for worker in workers):
        return "thread_fault"
    return READY if all(worker.is_open for worker in workers) else "thread_starting"


def is_ready(engine: Engine) -> bool:
    return readiness(engine) == READY


def engine_health(engine: Engine) -> dict[str, Any]:
    """Return the body of `/health/ready`."""
    return {
        "status": readiness(engine),
        "broken": engine.broken,
        "running": engine.num_running,
        "max_running": engine.config.max_running,
        "waiting": engine.num_waiting,
        "max_waiting": engine.config.max_waiting,
        "threads": [_thread_health(engine, worker) for worker in engine.workers],
    }


def _thread_health(engine: Engine, worker: Worker) -> dict[str, Any]:
    """Return the state of one worker thread; `last_step_at` does not change while it is idle."""
    age = max(engine.stats.clock() - worker.last_step_at, 0.0)
    at = datetime.fromtimestamp(time.time() - age, timezone.utc)
    return {
        "name": worker.name,
        "state": "idle" if worker.is_idle else "busy" if worker.is_open else "starting",
        "fault": engine.fault_of(worker),
        "last_step_at": at.isoformat(timespec="milliseconds"),
        "last_step_age_sec": round(age, 3),
        "running": len(worker.scheduler.running),
        "slots": worker.scheduler.num_slots,
        "steps": worker.stats.step_sec.num,
    }
