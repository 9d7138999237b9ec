"""The invariant of all tests of hostile clients: health answers at once, and a chat works."""

from __future__ import annotations

import time

import requests

from .client import TIMEOUT_SEC, Visitor
from .server import Server

MAX_HEALTH_SEC = 1.0


def check_health(server: Server) -> None:
    """Check the best of three times: a busy machine is slow once, a server without a free thread always."""
    assert min(health_sec(server) for _ in range(3)) < MAX_HEALTH_SEC


def health_sec(server: Server) -> float:
    started_at = time.monotonic()
    health = requests.get(f"http://127.0.0.1:{server.port}/health/live", timeout=TIMEOUT_SEC)
    assert health.status_code == 200
    return time.monotonic() - started_at


def check_well(server: Server) -> None:
    check_health(server)
    with Visitor(server.port) as visitor:
        assert visitor.ask("hello") == "hello"
    check_health(server)
