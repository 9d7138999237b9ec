"""Limits and turns of visitors hold over several servers: engines that share a Redis."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from fakes import TIMEOUT, ask, wait_until
from flask_fakes import ScriptedRunner
from tcp_proxy import TCPProxy

from chatstream_flask.config import EngineConfig, VisitorLimits
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest, Status
from chatstream_flask.errors import StoreUnavailable, TooManyRequests
from chatstream_flask.nodes.node import Node

MakeEngine = Callable[..., Engine]


@pytest.fixture
def engine(proxy: TCPProxy) -> Iterator[MakeEngine]:
    """Return a function that starts an engine of one more server; its replies last until cancelled."""
    engines: list[Engine] = []

    def make(num_slots: int = 1, max_waiting: int = 9) -> Engine:
        config = EngineConfig(max_running=num_slots, max_queue_size=max_waiting)
        engine = Engine(config, lambda thread: ScriptedRunner(is_held=True))
        engine.sharing = Node(f"redis://127.0.0.1:{proxy.port}/0", "test")
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for one in engines:
        one.stop()


def submit(
    engine: Engine, visitor: str | None, limits: VisitorLimits | None = None, priority: int = 0
) -> GenerationRequest:
    request = ask("hi", max_new_tokens=8)
    engine.submit(request, engine.reserve(visitor, priority, limits or VisitorLimits()))
    return request


def started(engine: Engine, visitor: str | None, limits: VisitorLimits | None = None) -> GenerationRequest:
    request = submit(engine, visitor, limits)
    wait_until(lambda: request.started_at is not None)
    return request


def end(engine: Engine, request: GenerationRequest) -> None:
    engine.cancel(request)
    assert request.read(0, TIMEOUT)[1]


def runs(*requests: GenerationRequest) -> list[bool]:
    return [request.started_at is not None for request in requests]


def disconnect(engine: Engine) -> Node:
    """Let an engine's node be silent, as that of a process that was killed."""
    node = engine.sharing
    assert isinstance(node, Node) and node._thread is not None
    node._is_stopping = True
    node._wake.set()
    node._thread.join()
    return node


ONE_RUNNING = VisitorLimits(max_running=1)


def test_a_visitor_runs_no_more_replies_than_allowed_on_all_servers(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    running = started(one, "a", ONE_RUNNING)
    waiting = submit(other, "a", ONE_RUNNING)
    assert runs(started(other, "b", ONE_RUNNING), waiting) == [True, False]
    end(one, running)
    assert waiting.status is Status.WAITING  # its server has no free slot
    other_waiting = submit(one, "a", ONE_RUNNING)
    wait_until(lambda: runs(other_waiting) == [True])


def test_the_oldest_request_of_a_visitor_comes_first(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    running = started(one, "a", ONE_RUNNING)
    older = submit(other, "a", ONE_RUNNING)
    younger = submit(one, "a", ONE_RUNNING)
    end(one, running)
    wait_until(lambda: any(runs(older, younger)))
    assert runs(older, younger) == [True, False]


def test_who_was_served_elsewhere_comes_after_the_others(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    first = started(one, "z")
    of_a = submit(one, "a")
    of_b = submit(one, "b")
    started(other, "a")
    end(one, first)
    wait_until(lambda: any(runs(of_a, of_b)))
    assert runs(of_a, of_b) == [False, True]


def test_a_higher_priority_comes_first_unless_its_visitor_must_wait(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    first = started(one, "z")
    started(other, "a", ONE_RUNNING)
    lower = submit(one, "b")
    higher = submit(one, "c", priority=1)
    held_up = submit(one, "a", ONE_RUNNING, priority=2)
    end(one, first)
    wait_until(lambda: any(runs(lower, higher, held_up)))
    assert runs(lower, higher, held_up) == [False, True, False]


def test_the_position_is_that_among_the_requests_of_all_servers(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    started(one, "a"), started(other, "b")
    queue = [(one, submit(one, "a")), (other, submit(other, "c")), (one, submit(one, "d"))]
    queue += [(other, submit(other, "a"))]  # its second, after the first of each other

    def positions() -> list[int]:
        return [place[0] for at, request in queue if (place := at.queue_place(request))]

    wait_until(lambda: positions() == [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("limits", "num_accepted"),
    [
        (VisitorLimits(max_running=2, max_waiting=1), 3),
        (VisitorLimits(max_waiting=0), 3),
        (VisitorLimits(), 5),
    ],
)
def test_a_burst_on_three_servers_gets_exactly_what_is_allowed(
    engine: MakeEngine, limits: VisitorLimits, num_accepted: int
) -> None:
    """Three slots, and two requests may wait in all."""
    engines = [engine(max_waiting=2) for _ in range(3)]
    start = threading.Barrier(30)
    reasons: Counter[str] = Counter()

    def ask_one(number: int) -> GenerationRequest | None:
        start.wait()
        try:
            return submit(engines[number % 3], "a", limits)
        except TooManyRequests as error:
            reasons[error.reason] += 1
            return None

    with ThreadPoolExecutor(30) as pool:
        accepted = [request for request in pool.map(ask_one, range(30)) if request is not None]
    assert len(accepted) == num_accepted, reasons
    num_running = min(limits.max_running or 3, 3)
    wait_until(lambda: sum(runs(*accepted)) == num_running)
    for one in engines:
        one.stop()
        one.start()
    assert submit(engines[0], "a", limits)


def test_tokens_are_counted_on_all_servers_and_unused_ones_come_back(engine: MakeEngine) -> None:
    one, other = engine(), engine()
    limits = VisitorLimits(max_tokens_per_minute=9)
    request = submit(one, "a", limits)  # 2 of its prompt and at most 8
    with pytest.raises(TooManyRequests) as refused:
        other.reserve("a", 0, limits)
    assert refused.value.reason == "visitor_tokens"
    assert "limit of 9 tokens per minute" in str(refused.value)
    end(one, request)
    assert submit(other, "a", limits)


def test_a_server_that_died_frees_its_places(engine: MakeEngine, empty_redis: redis.Redis) -> None:
    one, other = engine(max_waiting=1), engine(max_waiting=1)
    started(one, "a", ONE_RUNNING)
    submit(one, None)
    waiting = submit(other, "a", ONE_RUNNING)
    with pytest.raises(TooManyRequests):
        other.reserve("b")
        other.reserve("b")
    node = disconnect(one)
    assert runs(waiting) == [False]
    until_ms = empty_redis.zscore(node._shared.key("nodes"), node._shared.node)
    seconds, microseconds = empty_redis.time()
    assert isinstance(until_ms, float)
    assert 3 < until_ms / 1000 - (seconds + microseconds / 1e6) <= 5
    empty_redis.zadd(node._shared.key("nodes"), {node._shared.node: 0})
    wait_until(lambda: runs(waiting) == [True])
    assert empty_redis.hlen(node._shared.key("places", node._shared.node)) == 0
    other.reserve("b").close()


def test_while_redis_is_away_nothing_new_is_accepted_and_then_all_goes_on(
    engine: MakeEngine, proxy: TCPProxy
) -> None:
    one, other = engine(), engine()
    running = started(one, "a", ONE_RUNNING)
    waiting = submit(one, "b")
    elsewhere = submit(other, "a", ONE_RUNNING)
    with proxy.cut():
        with pytest.raises(StoreUnavailable, match="the Redis that the servers share"):
            other.reserve("c")
        assert other.num_accepted == 1
        end(one, running)
        assert runs(waiting, elsewhere) == [False, False]
    wait_until(lambda: runs(waiting, elsewhere) == [True, True])
    wait_until(lambda: can_reserve(other))


def can_reserve(engine: Engine) -> bool:
    try:
        engine.reserve("c").close()
    except StoreUnavailable:
        return False
    return True


def test_redis_that_comes_back_empty_is_told_everything_again(
    engine: MakeEngine, empty_redis: redis.Redis
) -> None:
    one, other = engine(), engine()
    started(one, "a", ONE_RUNNING)
    empty_redis.flushall()
    node = one.sharing
    assert isinstance(node, Node)
    wait_until(lambda: empty_redis.scard(node._shared.key("running", "a")) == 1)
    assert runs(submit(other, "a", ONE_RUNNING), started(other, "b")) == [False, True]


def test_a_request_ends_in_time_while_its_visitor_is_served_elsewhere(engine: MakeEngine) -> None:
    """The worker threads of its server are idle, so none of them looks for it."""
    one, other = engine(), engine()
    started(one, "a", ONE_RUNNING)
    request = ask("hi", timeout_sec=0.2)
    other.submit(request, other.reserve("a", 0, ONE_RUNNING))
    outcome = request.read(0, TIMEOUT)[1]
    assert outcome is not None and outcome.finish_reason is FinishReason.TIMEOUT
    wait_until(lambda: other.num_accepted == 0)


def test_a_request_that_is_cancelled_as_it_is_let_run_leaves_nothing(engine: MakeEngine) -> None:
    one = engine(num_slots=2)
    for _ in range(30):
        request = submit(one, "a", VisitorLimits(max_running=1, max_waiting=1))
        end(one, request)
    one.check_idle()
    node = one.sharing
    assert isinstance(node, Node)
    client = node._shared.client
    assert client.hlen(node._shared.key("places", node._shared.node)) == 0
    assert not client.exists(node._shared.key("running", "a"), node._shared.key("waiting", "a"))
    assert client.hlen(node._shared.key("turns")) == 0
