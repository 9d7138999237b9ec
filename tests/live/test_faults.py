"""Faults of the model on purpose: the requests concerned end with an error, and nobody else notices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from suite_size import IS_FULL

from chatstream_flask.client import Event, text_of

from .client import Visitor, wait_until
from .health import check_health
from .server import Server, start, start_mock

pytestmark = pytest.mark.server

MODELS = ["mock", "demo"] if IS_FULL else ["mock"]
NUM_THREADS, SLOTS_OF_A_THREAD, NUM_WAITING = 2, 2, 4
NUM_RUNNING = NUM_THREADS * SLOTS_OF_A_THREAD
SEED = 4711  # of the request that some faults concern
MESSAGES = [f"visitor {i} " + "counts to forty " * 10 for i in range(NUM_RUNNING + NUM_WAITING)]


class Case(NamedTuple):
    fault: dict[str, Any]
    max_failed: int  # replies that end; at least one if any
    replaced: str | None = None  # why a thread is replaced


ONE_THREAD, ONE_REPLY = SLOTS_OF_A_THREAD, 1
CASES = {
    "an error in a decode step": Case({"kind": "error", "after": 10, "times": 1}, ONE_THREAD),
    "an error in a prompt": Case({"kind": "error", "where": "prefill", "seed": SEED}, ONE_REPLY),
    "no memory in a decode step": Case({"kind": "out of memory", "after": 10, "times": 1}, ONE_THREAD),
    "no memory in a prompt": Case({"kind": "out of memory", "where": "prefill", "seed": SEED}, ONE_REPLY),
    "logits that are no numbers": Case({"kind": "nan", "seed": SEED, "after": 10}, ONE_REPLY),
    "a thread that dies": Case({"kind": "kill", "after": 10, "times": 1}, ONE_THREAD, "died"),
    "a thread that hangs": Case({"kind": "stall", "after": 10, "times": 1}, ONE_THREAD, "hung"),
    "a slow device": Case({"kind": "slow", "seconds": 0.05, "times": 20}, 0),
}


@pytest.fixture(scope="module", params=MODELS)
def server(
    request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"{kind}-faults")
    options: dict[str, Any] = {
        "config": {"CHATSTREAM_HUNG_AFTER_SEC": 1.0},
        "num_of_generation_threads": NUM_THREADS,
        "num_of_concurrent_executions": NUM_RUNNING,
        "max_queue_size": NUM_WAITING,
    }
    if request.param == "mock":
        server = start_mock(kind, folder, {"type": "echo", "time_per_token_sec": 0.005}, **options)
    else:
        server = start(kind, folder, **options)
    with server:
        yield server


@pytest.fixture(scope="module")
def alone(server: Server) -> list[str]:
    """Return the reply to each message when nobody else is there."""
    return [text_of(ask(server, i)) for i in range(len(MESSAGES))]


def ask(server: Server, i: int) -> list[Event]:
    with Visitor(server.port) as visitor:
        return visitor.ask_for_events(MESSAGES[i], max_new_tokens=40, seed=SEED if i == 1 else 1)


def get(server: Server, path: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=10)


def num_replaced(server: Server) -> dict[str, float]:
    found = re.findall(r'replacements_total\{reason="(\w+)"\} (\S+)', get(server, "/metrics").text)
    return {reason: float(num) for reason, num in found if float(num)}


@pytest.mark.parametrize("name", CASES)
def test_only_the_requests_concerned_end(
    server: Server, alone: list[str], name: str, record_property: Callable[[str, object], None]
) -> None:
    case = CASES[name]
    replaced = num_replaced(server)
    server.set_fault(**case.fault)
    with ThreadPoolExecutor(len(MESSAGES)) as pool:
        replies = list(pool.map(lambda i: ask(server, i), range(len(MESSAGES))))
    failed = [i for i, events in enumerate(replies) if events[-1].name == "error"]
    assert min(case.max_failed, 1) <= len(failed) <= case.max_failed
    for i, events in enumerate(replies):
        if i in failed:
            assert events[-1].data["code"] == "generation_failed"
            assert alone[i].startswith(text_of(events))
        else:
            assert (events[-1].name, text_of(events)) == ("done", alone[i])
    if "seed" in case.fault:
        assert failed == [1]
    server.set_fault()
    wait_until(lambda: get(server, "/health/ready").status_code == 200)
    check_health(server)
    server.check_idle()
    assert sum(thread["slots"] for thread in get(server, "/health/ready").json()["threads"]) == NUM_RUNNING
    if case.replaced is not None:
        replaced[case.replaced] = replaced.get(case.replaced, 0) + 1
    assert num_replaced(server) == replaced
    record_property(
        "figure", f"{name}: {len(failed)} of {len(MESSAGES)} replies end, the others are as alone"
    )
    assert [text_of(ask(server, i)) for i in failed] == [alone[i] for i in failed]


def test_a_prompt_that_always_fails_breaks_nothing_and_a_model_that_always_fails_is_broken(
    kind: str, tmp_path: Path
) -> None:
    """Six times the same prompt on an idle server ended in "broken"."""

    def codes(server: Server, num: int, **fields: Any) -> list[str]:
        with Visitor(server.port) as visitor:
            ends = [visitor.ask_for_events("Hello!", **fields)[-1] for _ in range(num)]
        return [end.data.get("code", "none") for end in ends]

    with start_mock(kind, tmp_path, {"type": "echo", "time_per_token_sec": 0.0}) as server:
        server.set_fault(kind="error", where="prefill", seed=SEED)
        assert codes(server, 9, seed=SEED) == ["generation_failed"] * 9
        assert codes(server, 1) == ["none"]
        assert get(server, "/health/ready").status_code == 200
        assert num_replaced(server) == {}
        server.set_fault(kind="error")
        with Visitor(server.port) as visitor:
            wait_until(
                lambda: visitor.post("Hello!").status_code == get(server, "/health/live").status_code == 503
            )
            with visitor.post("Hello!") as refused:
                assert (refused.status_code, refused.json()["error"]) == (503, "engine_broken")
        assert get(server, "/health/ready").json()["status"] == "broken"
        server.check_idle()
