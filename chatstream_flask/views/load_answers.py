"""Answers about load and memory."""

# mypy: allow-untyped-calls
from __future__ import annotations

import sys
from typing import Any

import psutil

from ..chat.wire_format import rounded
from ..engine.engine import Engine

NAME = "node:0"  # the original ChatStream had several nodes; here there is one
GIB = 2**30  # bytes


def load_of(engine: Engine) -> dict[str, Any]:
    """Return running and waiting replies, their limits, `free`, and `eta_s`.

    `free` is how many more requests of the chat are accepted now: a place is taken from before a request
    waits until its reply is stored.
    `eta_s` is an estimate of the seconds that one more request would wait; null before the first reply.
    """
    worker = {
        "name": NAME,
        "processing": engine.num_running,
        "waiting": engine.num_waiting,
        "max_processing": engine.config.max_running,
        "max_waiting": engine.config.max_waiting,
        "free": engine.num_free,
        "eta_s": rounded(engine.eta_sec(engine.num_waiting + 1)),
    }
    return {"success": True, "message": "success", "chatstream_workers": [worker]}


def resource_usage() -> dict[str, Any]:
    """Return memory in GiB: used by this process and total, and used and total of each CUDA device."""
    gpus = _gpus()
    usage = {
        "name": NAME,
        "num_gpus": len(gpus),
        "gpus": gpus,
        "cpu": {
            "total_memory": _gib(psutil.virtual_memory().total),
            "used_memory": _gib(psutil.Process().memory_info().rss),
        },
    }
    return {"success": True, "message": "success", "memory_usage": [usage]}


def _gpus() -> list[dict[str, Any]]:
    torch: Any = sys.modules.get("torch")  # never imported only for this answer
    if torch is None or not torch.cuda.is_available():
        return []
    memory = [torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]
    return [
        {"index": i, "total_memory": _gib(total), "used_memory": _gib(total - free)}
        for i, (free, total) in enumerate(memory)
    ]


def _gib(num_bytes: int) -> float:
    return round(num_bytes / GIB, 2)
