"""Limits per visitor on real servers: one session is limited, others are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from .client import EVENTS, Visitor, wait_until
from .server import start_mock

pytestmark = pytest.mark.server

MOCK = {"type": "long", "time_per_token_sec": 0.05}
LIMITS = {
    "CHATSTREAM_MAX_RUNNING_PER_VISITOR": 1,
    "CHATSTREAM_MAX_WAITING_PER_VISITOR": 0,
    "CHATSTREAM_MAX_TOKENS_PER_MINUTE_PER_VISITOR": 30,
}


def test_a_visitor_has_limits_and_the_others_their_places(kind: str, tmp_path: Path) -> None:
    options = {"num_of_concurrent_executions": 4, "too_many_request_as_http_error": True}
    with start_mock(kind, tmp_path, MOCK, config=LIMITS, **options) as server:
        with Visitor(server.port) as one, Visitor(server.port) as other:
            for visitor in (one, other):
                visitor.ask("hi", max_new_tokens=2)  # now it has a session
            running = one.post("hi", accept=EVENTS, max_new_tokens=20)
            wait_until(lambda: server.has(running=1))
            refused = one.post("again")
            assert (refused.status_code, refused.json()["reason"]) == (429, "visitor_running")
            assert 1 <= int(refused.headers["Retry-After"]) < 60
            assert len(other.ask("hi", max_new_tokens=3).split()) == 3
            assert b"event: done" in running.content
            one.ask("once more", max_new_tokens=20)
            refused = one.post("and again")
            assert (refused.status_code, refused.json()["reason"]) == (429, "visitor_tokens")
            assert int(refused.headers["Retry-After"]) >= 1
            assert len(other.ask("hi", max_new_tokens=3).split()) == 3
        server.check_idle()
