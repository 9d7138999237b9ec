"""Fair use: visitors take turns, have limits, and are sent their true position in the queue."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from fakes import FakeClock, ask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatstream_flask.config import VisitorLimits
from chatstream_flask.engine.fair_queue import MAX_SKIPS
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.places import SWEEP_SEC, Reservation
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.request_queue import RequestQueue
from chatstream_flask.errors import ConfigError, TooManyRequests

ONE_RUNS = VisitorLimits(max_running=1)


class Lobby:
    """A queue with one thread; requests are known by a letter and a number, as "a2"."""

    def __init__(self, num_slots: int = 9, capacity: int = 99) -> None:
        self.clock = FakeClock()
        self.queue = RequestQueue(capacity, [num_slots], clock=self.clock)
        self.limits: dict[str, VisitorLimits] = defaultdict(VisitorLimits)
        self.requests: dict[str, GenerationRequest] = {}
        self.reservations: dict[str, Reservation] = {}
        self.names: dict[GenerationRequest, str] = {}

    def put(self, *names: str, priority: int = 0, max_new_tokens: int = 256) -> None:
        for name in names:
            request = ask(name, clock=self.clock, max_new_tokens=max_new_tokens)
            visitor = None if name[0] == "-" else name[0]
            reservation = self.queue.reserve(visitor, priority, self.limits[name[0]])
            try:
                self.queue.put(request, reservation)
            except TooManyRequests:
                reservation.close()
                raise
            self.requests[name], self.reservations[name], self.names[request] = request, reservation, name

    def take(self) -> str:
        """Return the name of the visitor whose request was taken, or ""."""
        request = self.queue.take(0, wait=False)
        if request is None:
            return ""
        request.start()
        return self.names[request]

    def take_all(self) -> str:
        return " ".join(iter(self.take, ""))

    def end(self, name: str, num_generated: int = 0) -> None:
        request = self.requests[name]
        for _ in range(num_generated):
            request.count_token(7)
        self.queue.done(0, request)
        request.finish(FinishReason.STOP)
        self.queue.release(request)

    def positions(self, *names: str) -> list[int]:
        return [self.queue.position(self.requests[name]) for name in names]

    def refusal(self, name: str) -> TooManyRequests:
        with pytest.raises(TooManyRequests) as caught:
            self.put(name)
        return caught.value


def test_visitors_take_turns() -> None:
    lobby = Lobby()
    lobby.put("a1", "a2", "a3", "b1", "c1", "b2")
    assert lobby.positions("a1", "b1", "c1", "a2", "b2", "a3") == [1, 2, 3, 4, 5, 6]
    assert lobby.take_all() == "a1 b1 c1 a2 b2 a3"


def test_nobodys_requests_take_turns_each_alone() -> None:
    lobby = Lobby()
    lobby.put("-1", "a1", "a2", "-2", "-3")
    assert lobby.take_all() == "-1 a1 -2 -3 a2"


def test_who_comes_back_goes_to_the_end() -> None:
    lobby = Lobby()
    lobby.put("a1", "b1", "b2")
    assert lobby.take() == "a1"
    lobby.put("a2", "c1")
    assert lobby.take_all() == "b1 a2 c1 b2"


def test_visitor_at_its_running_limit_is_passed_over_and_keeps_its_turn() -> None:
    lobby = Lobby()
    lobby.limits["a"] = ONE_RUNS
    lobby.put("a1", "a2", "b1", "b2", "b3")
    assert lobby.positions("a1", "b1", "b2", "b3", "a2") == [1, 2, 3, 4, 5]
    assert [lobby.take(), lobby.take(), lobby.take()] == ["a1", "b1", "b2"]
    assert lobby.positions("b3", "a2") == [1, 2]
    lobby.end("a1")
    assert lobby.positions("a2", "b3") == [1, 2]
    assert lobby.take_all() == "a2 b3"


def test_thread_without_work_that_may_run_takes_nothing_until_one_ends() -> None:
    lobby = Lobby()
    lobby.limits["a"] = ONE_RUNS
    lobby.put("a1", "a2", "a3")
    assert lobby.take_all() == "a1"
    lobby.end("a1")
    assert lobby.take_all() == "a2"
    assert lobby.positions("a3") == [1]


def test_higher_limit_lets_the_waiting_go_at_once() -> None:
    lobby = Lobby()
    lobby.limits["a"] = ONE_RUNS
    lobby.put("a1", "a2")
    assert lobby.take_all() == "a1"
    lobby.limits["a"] = VisitorLimits(max_running=3)
    lobby.put("a3")
    assert lobby.take_all() == "a2 a3"


def test_higher_priority_first_but_not_for_ever() -> None:
    lobby = Lobby(num_slots=99)
    lobby.put("a1", "b1")
    lobby.put(*[f"{visitor}{i}" for i in range(2, 12) for visitor in "cd"], priority=5)
    order = lobby.queue._waiting.in_order()
    taken = lobby.take_all().split()
    assert [taken.index("a1"), taken.index("b1")] == [MAX_SKIPS, 2 * MAX_SKIPS + 1]
    assert [lobby.names[request] for request in order] == taken
    high = [name for name in taken if name[0] in "cd"]
    assert high == [f"{visitor}{i}" for i in range(2, 12) for visitor in "cd"]


def test_of_three_priorities_each_is_served() -> None:
    lobby = Lobby(num_slots=99)
    for priority, visitor in enumerate("abc"):
        lobby.put(*[f"{visitor}{i}" for i in range(20)], priority=priority)
    taken = lobby.take_all().split()[: 2 * MAX_SKIPS + 4]
    assert Counter(name[0] for name in taken) == {"c": 2 * MAX_SKIPS, "b": 2, "a": 2}


def test_a_place_for_each_that_may_wait_beyond_those_that_run() -> None:
    lobby = Lobby(num_slots=2)
    lobby.limits["a"] = VisitorLimits(max_waiting=1)
    lobby.put("a1", "a2", "a3")  # though no thread has taken one yet
    refused = lobby.refusal("a4")
    assert (refused.reason, refused.status) == ("visitor_waiting", 429)
    lobby.put("b1", "b2")
    assert [lobby.take(), lobby.take()] == ["a1", "b1"]
    assert lobby.refusal("a4").reason == "visitor_waiting"
    lobby.end("b1")
    assert lobby.take() == "a2"
    assert lobby.refusal("a4").reason == "visitor_waiting"
    lobby.end("a1")
    assert lobby.take() == "b2"
    lobby.queue.discard(lobby.requests["a3"])
    lobby.put("a4")


def test_nothing_may_wait() -> None:
    lobby = Lobby(num_slots=2)
    lobby.limits["a"] = VisitorLimits(max_running=1, max_waiting=0)
    lobby.put("a1")
    assert lobby.take() == "a1"
    assert lobby.refusal("a2").reason == "visitor_running"
    lobby.limits["b"] = ONE_RUNS
    lobby.put("b1", "b2")  # b2 holds up nobody
    assert lobby.take_all() == "b1"
    lobby.limits["c"] = VisitorLimits(max_waiting=0)
    assert lobby.refusal("c1").reason == "visitor_waiting"
    lobby.end("a1")
    lobby.put("c1")
    assert lobby.take_all() == "c1"


def test_reserved_places_count_and_closed_ones_do_not() -> None:
    queue = RequestQueue(9, [1])
    limits = VisitorLimits(max_waiting=1)
    places = [queue.reserve("a", 0, limits), queue.reserve("a", 0, limits)]
    with pytest.raises(TooManyRequests):
        queue.reserve("a", 0, limits)
    places[0].close()
    places[0].close()
    queue.reserve("a", 0, limits)
    with pytest.raises(TooManyRequests):
        queue.reserve("a", 0, limits)


def test_full_queue_is_the_first_reason() -> None:
    lobby = Lobby(num_slots=1, capacity=2)
    lobby.limits["a"] = VisitorLimits(max_running=1, max_waiting=1)
    lobby.put("a1", "a2")
    assert lobby.refusal("a3").reason == lobby.refusal("b1").reason == "queue_full"


def test_tokens_of_prompt_and_reply_come_back_within_a_minute() -> None:
    lobby = Lobby()
    lobby.limits["a"] = VisitorLimits(max_tokens_per_minute=60)
    lobby.put("a1", max_new_tokens=88)
    refused = lobby.refusal("a2")
    assert (refused.reason, refused.retry_after) == ("visitor_tokens", 31)  # 2 + 88, should all be needed
    lobby.take()
    lobby.end("a1", num_generated=58)
    refused = lobby.refusal("a2")
    assert (refused.retry_after, str(refused)) == (
        1,
        "you have used your limit of 60 tokens per minute; try again in 1 s",
    )
    lobby.clock.advance(refused.retry_after)
    lobby.put("a2", max_new_tokens=60)
    lobby.put("b1")  # others may


def test_tokens_of_requests_that_never_ran_come_back_at_once() -> None:
    lobby = Lobby()
    lobby.limits["a"] = VisitorLimits(max_tokens_per_minute=50)
    lobby.put("a1", max_new_tokens=100)
    assert lobby.refusal("a2").retry_after == 64
    lobby.queue.discard(lobby.requests["a1"])
    lobby.put("a2", max_new_tokens=100)
    lobby.requests["a2"].request_stop(FinishReason.CANCELLED)
    assert lobby.queue.pop_overdue() == [lobby.requests["a2"]]
    lobby.put("a3")


def test_two_at_once_do_not_both_pass_the_token_limit() -> None:
    lobby = Lobby()
    limits = VisitorLimits(max_tokens_per_minute=50)
    first, second = lobby.queue.reserve("a", 0, limits), lobby.queue.reserve("a", 0, limits)
    lobby.queue.put(ask("a1", max_new_tokens=48), first)
    with pytest.raises(TooManyRequests):
        lobby.queue.put(ask("a2", max_new_tokens=48), second)
    second.close()
    assert lobby.queue.num_accepted == 1


def test_visitors_are_forgotten() -> None:
    lobby = Lobby()
    limits = VisitorLimits(max_tokens_per_minute=60)
    for i in range(100):
        lobby.queue.reserve(f"visitor {i}", 0, limits).close()
    lobby.limits["a"] = limits
    lobby.put("a1", max_new_tokens=400)
    lobby.take()
    lobby.end("a1", num_generated=400)
    lobby.clock.advance(SWEEP_SEC)
    lobby.put("b1", "-1")
    assert set(lobby.queue._places.visitors) == {"a", "b", lobby.reservations["-1"].visitor}
    lobby.clock.advance(400)
    lobby.queue.discard(lobby.requests["b1"])
    lobby.put("c1")
    assert set(lobby.queue._places.visitors) == {"c", lobby.reservations["-1"].visitor}


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_running": 0}, "max_running must be at least 1, not 0"),
        ({"max_waiting": -1}, "max_waiting must be at least 0, not -1"),
        ({"max_tokens_per_minute": 1.5}, "max_tokens_per_minute must be a whole number, not 1.5"),
    ],
)
def test_wrong_limits(limits: dict[str, int], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisitorLimits(**limits)
    assert str(caught.value) == sentence


class FairnessMachine(RuleBasedStateMachine):
    """Between two takes of one visitor, each other one that waits and may run is served."""

    @initialize(
        num_slots=st.integers(1, 4), limits=st.lists(st.sampled_from([None, 1, 2]), min_size=4, max_size=4)
    )
    def begin(self, num_slots: int, limits: list[int | None]) -> None:
        self.lobby, self.num_slots = Lobby(num_slots), num_slots
        for visitor, limit in zip("abcd", limits, strict=True):
            self.lobby.limits[visitor] = VisitorLimits(max_running=limit)
        self.waiting: list[str] = []
        self.running: list[str] = []
        self.num_put = 0
        self.overtakers: dict[str, Counter[str]] = {}  # of each visitor that waits and may run

    @rule(visitor=st.sampled_from("abcd"))
    def put(self, visitor: str) -> None:
        self.num_put += 1
        name = f"{visitor}{self.num_put}"
        self.lobby.put(name)
        self.waiting.append(name)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        ready = {name[0] for name in self.waiting if self.may_run(name[0])}
        is_free = len(self.running) < self.num_slots
        order = sorted(self.waiting, key=lambda name: self.lobby.positions(name))
        taken = self.lobby.take()
        assert taken == (order[0] if ready and is_free else "")
        if taken:
            assert taken == next(name for name in self.waiting if name[0] == taken[0])
            self.waiting.remove(taken)
            self.running.append(taken)
            self.overtakers.pop(taken[0])
            for overtakers in self.overtakers.values():
                overtakers[taken[0]] += 1
                assert overtakers[taken[0]] == 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.running))
        self.running.remove(name)
        self.lobby.end(name)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(name)
        assert self.lobby.queue.discard(self.lobby.requests[name])
        assert not self.lobby.queue.discard(self.lobby.requests[name])

    def may_run(self, visitor: str) -> bool:
        limit = self.lobby.limits[visitor].max_running
        return limit is None or sum(name[0] == visitor for name in self.running) < limit

    @invariant()
    def positions_count_from_one(self) -> None:
        assert sorted(self.lobby.positions(*self.waiting)) == list(range(1, len(self.waiting) + 1))

    @invariant()
    def who_waits_and_may_run_is_watched(self) -> None:
        ready = {name[0] for name in self.waiting if self.may_run(name[0])}
        self.overtakers = {visitor: self.overtakers.get(visitor, Counter()) for visitor in ready}


test_fairness = FairnessMachine.TestCase
test_fairness.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
