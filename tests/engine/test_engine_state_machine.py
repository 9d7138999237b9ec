"""Invariants of the engine hold after any sequence of events from visitors, threads and the clock."""

from __future__ import annotations

from contextlib import suppress

import pytest
from fakes import Bench, FakeClock, ask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatstream_flask.config import VisitorLimits
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.places import Reservation
from chatstream_flask.engine.request import GenerationRequest, Status
from chatstream_flask.engine.worker import Retired
from chatstream_flask.errors import NotAccepting, TooManyRequests


class EngineMachine(RuleBasedStateMachine):
    @initialize(
        slots=st.lists(st.integers(1, 3), min_size=1, max_size=2),
        num_waiting=st.integers(0, 3),
        chunk_len=st.integers(1, 4),
        max_running=st.sampled_from([None, 1, 2]),
        max_waiting=st.sampled_from([None, 0, 1]),
    )
    def begin(
        self,
        slots: list[int],
        num_waiting: int,
        chunk_len: int,
        max_running: int | None,
        max_waiting: int | None,
    ) -> None:
        self.clock = FakeClock()
        self.bench = Bench(slots=slots, num_waiting=num_waiting, chunk_len=chunk_len)
        self.limits = VisitorLimits(max_running=max_running, max_waiting=max_waiting)
        self.queue = self.bench.queue
        self.is_draining = False
        self.reserved: list[Reservation] = []
        self.accepted: list[GenerationRequest] = []  # in the order of submission

    # -- visitors ----------------------------------------------------------------------------------

    @rule(visitor=st.sampled_from([None, "a", "b"]), priority=st.integers(0, 1))
    def reserve(self, visitor: str | None, priority: int) -> None:
        if self.is_draining:
            with pytest.raises(NotAccepting):
                self.queue.reserve(visitor, priority, self.limits)
            return
        try:
            self.reserved.append(self.queue.reserve(visitor, priority, self.limits))
        except TooManyRequests as error:
            is_full = self.queue.num_accepted == self.queue.capacity
            assert is_full == (error.reason == "queue_full")
            assert is_full or visitor is not None

    @precondition(lambda self: self.reserved)
    @rule()
    def change_their_mind(self) -> None:
        self.reserved.pop(0).close()

    @precondition(lambda self: self.reserved)
    @rule(
        text=st.text("abc", min_size=1, max_size=8),
        max_new_tokens=st.integers(1, 9),
        timeout_sec=st.sampled_from([2, 5, 1000]),
    )
    def submit(self, text: str, max_new_tokens: int, timeout_sec: int) -> None:
        reservation = self.reserved.pop(0)
        request = ask(text, max_new_tokens=max_new_tokens, timeout_sec=timeout_sec, clock=self.clock)
        if self.is_draining:
            with pytest.raises(NotAccepting):
                self.queue.put(request, reservation)
            reservation.close()
        else:
            self.queue.put(request, reservation)
            self.accepted.append(request)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.accepted))
        was_waiting = request.status is Status.WAITING
        self.bench.cancel(request)
        assert not was_waiting or request.outcome is not None

    # -- threads and time ----------------------------------------------------------------------------

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        worker = data.draw(st.integers(0, len(self.bench.workers) - 1))
        waiting = self.waiting_in_order()
        overdue = [r for r in self.bench.running if r.stop_reason and r in self.requests_of(worker)]
        must_end = [r for r in waiting if r.stop_reason]
        self.bench.step(worker)
        assert all(r.outcome is not None for r in overdue + must_end)
        if not must_end:  # one that ends when it is taken lets the next one start
            started = [r for r in waiting if r.status is not Status.WAITING]
            assert started == waiting[: len(started)]

    @rule(seconds=st.integers(1, 3))
    def time_goes_by(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(data=st.data())
    def worker_is_replaced(self, data: st.DataObject) -> None:
        self.bench.replace(data.draw(st.integers(0, len(self.bench.workers) - 1)))

    @precondition(lambda self: self.bench.replaced)
    @rule(data=st.data())
    def hung_one_moves_again(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.bench.replaced))
        with suppress(Retired):
            worker.step()
        with pytest.raises(Retired):
            worker.admit()

    @rule()
    def drain(self) -> None:
        self.is_draining = True
        self.queue.refuse_new()

    # -- what always holds -----------------------------------------------------------------------------

    @invariant()
    def accepted_is_running_and_waiting_and_finished(self) -> None:
        by_status = {status: [r for r in self.accepted if r.status is status] for status in Status}
        running, waiting = by_status[Status.RUNNING], by_status[Status.WAITING]
        assert set(running) == set(self.bench.running)
        assert len(running) == self.queue.num_running == len(self.bench.running)
        assert sorted(map(self.queue.position, waiting)) == list(range(1, len(waiting) + 1))
        assert len(waiting) == self.queue.num_waiting
        assert len(self.reserved) + len(running) + len(waiting) == self.queue.num_accepted
        assert self.queue.num_accepted <= self.queue.capacity

    @invariant()
    def slots_have_no_gap(self) -> None:
        for worker in self.bench.workers:
            running = worker.scheduler.running
            assert [s.slot for s in running] == list(range(len(running)))
            assert len(running) + worker.scheduler.num_free == worker.scheduler.num_slots
            assert all(0 <= s.num_cached < len(s.token_ids) for s in running)

    @invariant()
    def visitors_are_within_their_limits(self) -> None:
        places = self.queue._places
        by_request = {request: places.get(request) for request in places.requests}
        reservations = {*self.reserved, *by_request.values()}
        assert len(reservations) == self.queue.num_accepted
        held = [reservation.visitor for reservation in reservations if reservation is not None]
        for visitor in {visitor for visitor in held if visitor.limits == self.limits}:
            own = [request for request, it in by_request.items() if it is not None and it.visitor is visitor]
            num_running = sum(request in self.bench.running for request in own)
            num_waiting = held.count(visitor) - num_running
            assert (num_running, num_waiting) == (visitor.num_running, visitor.num_waiting)
            assert self.limits.max_running is None or num_running <= self.limits.max_running

    @invariant()
    def each_has_a_true_text_and_then_one_outcome(self) -> None:
        assert len(self.bench.ended) == len(set(self.bench.ended))
        for request in self.accepted:
            prompt = "".join(map(chr, request.prompt_ids))
            assert prompt.startswith(request.text)
            assert (request.outcome is not None) == (request.status is Status.FINISHED)
            assert (request in self.bench.ended) == (request.status is Status.FINISHED)
            if request.outcome is None:
                continue
            if request.outcome.finish_reason is FinishReason.STOP:
                assert request.text == prompt
            if request.outcome.finish_reason is FinishReason.LENGTH:
                assert len(request.text) == request.params.max_new_tokens

    def waiting_in_order(self) -> list[GenerationRequest]:
        waiting = [r for r in self.accepted if r.status is Status.WAITING]
        return sorted(waiting, key=self.queue.position)

    def requests_of(self, worker: int) -> list[GenerationRequest]:
        return [sequence.request for sequence in self.bench.workers[worker].scheduler.running]

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for reservation in self.reserved:
            reservation.close()
        self.bench.finish_all()
        assert all(request.outcome is not None for request in self.accepted)
        assert self.queue.num_accepted == self.queue.num_running == 0
        assert self.queue.wait_until_empty(0)


test_engine_states = EngineMachine.TestCase
test_engine_states.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
