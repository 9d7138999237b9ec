"""Twelve clients at once on two slots and five waiting places."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from .client import EVENTS, Visitor, wait_until
from .server import Server

pytestmark = pytest.mark.server

NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Julia", "Kevin", "Laura", "Tom"]
NUM_PLACES = 7
REFUSED = '{"error":"too_many_requests"}'


def test_seven_are_answered_five_refused_and_nobody_gets_a_name_of_another(demo_server: Server) -> None:
    with ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(demo_server.port, name)) for name in NAMES]
        for visitor, name in zip(visitors, NAMES, strict=True):
            visitor.ask(f"My name is {name}.")
        demo_server.check_idle()
        answers = ask_all_at_once(demo_server, visitors, "What is my name?")
        by_name = dict(zip(NAMES, answers, strict=True))
        refused = [name for name, answer in by_name.items() if answer == REFUSED]
        assert len(refused) == len(NAMES) - NUM_PLACES
        assert [name for name in NAMES if name not in refused and name not in by_name[name]] == []
        demo_server.check_idle()
        for visitor, name in zip(
            visitors, NAMES, strict=True
        ):  # the refusal has not changed its conversation
            if name in refused:
                assert name in visitor.ask("What is my name?")
        demo_server.check_idle()
        for name in NAMES:
            wait_until(lambda n=name: len(demo_server.outcomes(n)) == 2)  # type: ignore[misc]
            assert [line["message"] for line in demo_server.outcomes(name)] == ["success"] * 2


def ask_all_at_once(server: Server, visitors: list[Visitor], text: str) -> list[str]:
    """Return all replies; the server's model is held until every visitor has asked."""
    together = threading.Barrier(len(visitors))

    def ask(visitor: Visitor) -> str:
        together.wait(timeout=10)
        with visitor.post(text) as response:
            assert response.status_code == 200
            return response.text

    server.hold()
    with ThreadPoolExecutor(len(visitors)) as threads:
        try:
            answers = [threads.submit(ask, visitor) for visitor in visitors]
            wait_until(lambda: sum(answer.done() for answer in answers) == len(visitors) - NUM_PLACES)
            assert server.has(accepted=NUM_PLACES)
        finally:
            server.release()
        return [answer.result() for answer in answers]


def test_refusals_as_http_errors_say_when_to_come_back(long_server: Server) -> None:
    long_server.check_idle()
    together = threading.Barrier(12)
    with ExitStack() as stack, ThreadPoolExecutor(12) as threads:

        def ask(visitor: Visitor) -> tuple[int, str, str]:
            together.wait(timeout=10)
            response = stack.enter_context(visitor.post("Hello!", accept=EVENTS))
            headers = response.headers
            return response.status_code, headers["Content-Type"], headers.get("Retry-After", "")

        visitors = [stack.enter_context(Visitor(long_server.port)) for _ in range(12)]
        answers = list(threads.map(ask, visitors))
        wait_until(lambda: long_server.has(running=2, waiting=5, accepted=NUM_PLACES))
    accepted = [answer for answer in answers if answer[0] == 200]
    refused = [answer for answer in answers if answer[0] == 429]
    assert (len(accepted), len(refused)) == (NUM_PLACES, 5)
    for _, content_type, retry_after in refused:
        assert content_type == "application/problem+json"
        assert 1 <= int(retry_after) <= 59
    long_server.check_idle()  # all have left
