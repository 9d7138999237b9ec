"""Invariants of the engine hold after any sequence of events from visitors, threads and the clock."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import pytest
from fakes import Bench, EchoRunner, FakeClock, ask, text_of
from hypothesis import HealthCheck, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from suite_size import size

from chatstream_flask.config import VisitorLimits
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.places import Reservation
from chatstream_flask.engine.request import GenerationRequest, Status
from chatstream_flask.engine.runner import NewIds
from chatstream_flask.engine.sequence import Chunk, Sequence
from chatstream_flask.engine.worker import Retired, Worker
from chatstream_flask.errors import NotAccepting, TooManyRequests

EVENTS = [
    *("submit", "submit", "submit", "step", "step", "step", "step", "reserve", "change their mind", "cancel"),
    *("connect", "read", "disconnect", "resume", "time goes by"),
    *("runner will fail", "worker is replaced", "hung one moves again", "drain"),
]
TEXTS = ["a", "b", "ab", "abc", "cba", "abcab", "aaaaaaaa"]
PICK = st.integers(0, 11)
T = TypeVar("T")


def picked(things: list[T], pick: int) -> T:
    return things[pick % len(things)]


class Fault(Exception):
    """Of the runner, on purpose."""


class Violation(BaseException):
    """What EchoRunner has found wrong; no Exception, which a worker would take for a fault of the runner."""


class RunnerWithFaults(EchoRunner):
    """Fails once in a step that `next_fault` names."""

    next_fault: str | None = None

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        with self.having_faults("prefill"):
            return super().prefill(chunks)

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        with self.having_faults("decode"):
            return super().decode(sequences)

    @contextmanager
    def having_faults(self, step: str) -> Iterator[None]:
        if self.next_fault == step:
            self.next_fault = None
            raise Fault(f"{step} fails")
        try:
            yield
        except AssertionError as error:
            raise Violation from error


@dataclass(eq=False)
class Reader:
    request: GenerationRequest
    text: str = ""  # that it has read

    def close(self) -> None: ...


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
        self.bench = Bench(
            slots=slots, num_waiting=num_waiting, chunk_len=chunk_len, make_runner=RunnerWithFaults
        )
        self.limits = VisitorLimits(max_running=max_running, max_waiting=max_waiting)
        self.queue = self.bench.queue
        self.is_draining = False
        self.reserved: list[Reservation] = []
        self.accepted: list[GenerationRequest] = []  # in the order of submission
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []  # may come back
        self.events: list[str] = []

    @rule(event=st.sampled_from(range(60)), pick=PICK, number=PICK, text=st.sampled_from(TEXTS))
    def happens(self, event: int, pick: int, number: int, text: str) -> None:
        """Let one of the possible events happen; `pick` and `number` are whatever it needs.

        There is one rule for all, because in each run hypothesis leaves out some rules, and without arrivals
        or steps there is nothing to see.
        """
        name = picked(self.possible_events(), event)
        self.events.append(name)
        visitor, priority = [None, "a", "b"][pick % 3], number % 2
        match name:
            case "reserve":
                self.reserve(visitor, priority)
            case "change their mind":
                self.reserved.pop(0).close()
            case "submit":
                if not self.reserved:
                    self.reserve(visitor, priority)
                if self.reserved:
                    self.submit(text, 1 + pick % 9, [2, 5, 1000][number % 3])
            case "cancel":
                self.cancel(picked(self.not_ended, pick))
            case "connect":
                self.attach(Reader(picked(self.accepted, pick)))
            case "read":
                self.read(picked(self.readers, pick))
            case "disconnect":
                self.disconnect(picked(self.readers, pick), [0, 2][number % 2])
            case "resume":
                self.resume(picked(self.gone, pick))
            case "step":
                self.step(pick % len(self.bench.workers))
            case "time goes by":
                self.clock.advance(1 + number % 3)
            case "runner will fail":
                runner = self.runner_of(picked(self.bench.workers, pick))
                runner.next_fault = ["prefill", "decode"][number % 2]
            case "worker is replaced":
                self.bench.replace(pick % len(self.bench.workers))
            case "hung one moves again":
                self.move_again(picked(self.bench.replaced, pick))
            case "drain":
                self.is_draining = True
                self.queue.refuse_new()

    def possible_events(self) -> list[str]:
        needed: dict[str, object] = {
            "change their mind": self.reserved,
            "cancel": self.not_ended,
            "connect": self.accepted,
            "read": self.readers,
            "disconnect": self.readers,
            "resume": self.gone,
            "hung one moves again": self.bench.replaced,
            "drain": len(self.accepted) >= 20 and not self.is_draining,  # later there is little to see
        }
        return [event for event in EVENTS if needed.get(event, True)]

    @property
    def not_ended(self) -> list[GenerationRequest]:
        return [request for request in self.accepted if request.outcome is None]

    # -- visitors ----------------------------------------------------------------------------------

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

    def cancel(self, request: GenerationRequest) -> None:
        was_waiting = request.status is Status.WAITING
        self.bench.cancel(request)
        assert not was_waiting or request.outcome is not None

    def read(self, reader: Reader) -> None:
        pieces, outcome = reader.request.read(len(reader.text), 0)
        reader.text += text_of(pieces)
        assert reader.text == reader.request.text
        assert outcome is reader.request.outcome

    def disconnect(self, reader: Reader, grace_sec: int) -> None:
        self.readers.remove(reader)
        self.gone.append(reader)
        is_last = all(other.request is not reader.request for other in self.readers)
        is_orphaned = reader.request.detach(reader, grace_sec)
        assert is_orphaned == (is_last and reader.request.outcome is None)
        if is_orphaned and not grace_sec:
            assert reader.request.stop_reason is not None

    def resume(self, reader: Reader) -> None:
        """Come back for the rest of a reply."""
        self.gone.remove(reader)
        self.attach(reader)

    def attach(self, reader: Reader) -> None:
        reader.request.attach(reader)
        self.readers.append(reader)
        assert reader.request.stop_reason is not FinishReason.DISCONNECTED

    # -- threads and time ----------------------------------------------------------------------------

    def step(self, worker: int) -> None:
        waiting = self.waiting_in_order()
        overdue = [r for r in self.bench.running if r.stop_reason and r in self.requests_of(worker)]
        must_end = [r for r in waiting if r.stop_reason]
        self.bench.workers[worker].admit()
        self.step_as_thread(self.bench.workers[worker])
        if self.bench.workers[worker].is_failing:
            self.bench.replace(worker)
        assert all(r.outcome is not None for r in overdue + must_end)
        if not must_end:  # one that ends when it is taken lets the next one start
            started = [r for r in waiting if r.status is not Status.WAITING]
            assert started == waiting[: len(started)]

    def step_as_thread(self, worker: Worker) -> None:
        try:
            worker.step()
        except Fault:
            worker._fail_all()

    def runner_of(self, worker: Worker) -> RunnerWithFaults:
        assert isinstance(worker.runner, RunnerWithFaults)
        return worker.runner

    def move_again(self, worker: Worker) -> None:
        """Let a worker go on that hung and has been replaced: it ends."""
        self.bench.replaced.remove(worker)
        with suppress(Retired):
            self.step_as_thread(worker)
        with pytest.raises(Retired):
            worker.admit()

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

    def state(self) -> int:
        """Return a hash of what a request, a thread or a reader can see."""
        number = {request: i for i, request in enumerate(self.accepted)}
        state = (
            [(r.status, r.outcome and r.outcome.finish_reason, r.stop_reason, r.text) for r in self.accepted],
            [
                [(number[s.request], s.slot, s.num_cached) for s in w.scheduler.running]
                for w in self.bench.workers
            ],
            [number[request] for request in self.waiting_in_order()],
            [(number[reader.request], reader.text) for reader in self.readers],
            [(held.priority, held.visitor.num_running, held.visitor.num_waiting) for held in self.reserved],
            self.is_draining,
        )
        return hash(repr(state))

    def waiting_in_order(self) -> list[GenerationRequest]:
        waiting = [r for r in self.accepted if r.status is Status.WAITING]
        return sorted(waiting, key=self.queue.position)

    def requests_of(self, worker: int) -> list[GenerationRequest]:
        return [sequence.request for sequence in self.bench.workers[worker].scheduler.running]

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        if currently_in_test_context():
            note(", ".join(self.events))
        for reservation in self.reserved:
            reservation.close()
        for worker in self.bench.workers:
            self.runner_of(worker).next_fault = None
        self.bench.finish_all()
        assert all(request.outcome is not None for request in self.accepted)
        assert self.queue.num_accepted == self.queue.num_running == 0
        assert self.queue.wait_until_empty(0)


def test_any_events_one_after_the_other() -> None:
    """Hypothesis looks for a short run that fails."""
    run_state_machine_as_test(
        EngineMachine,
        settings=settings(
            max_examples=size(40, 1000),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def walk(seed: int, num_events: int) -> set[int]:
    """Let events happen at random; return the hashes of the states that were reached."""
    rng = random.Random(seed)
    machine = EngineMachine()
    machine.begin(
        slots=[rng.randint(1, 3) for _ in range(rng.randint(1, 2))],
        num_waiting=rng.randint(0, 3),
        chunk_len=rng.randint(1, 4),
        max_running=rng.choice([None, 1, 2]),
        max_waiting=rng.choice([None, 0, 1]),
    )
    states = set()
    while len(machine.events) < num_events and not (machine.is_draining and machine.queue.is_exhausted):
        machine.happens(rng.randrange(60), rng.randrange(12), rng.randrange(12), rng.choice(TEXTS))
        machine.accepted_is_running_and_waiting_and_finished()
        machine.slots_have_no_gap()
        machine.visitors_are_within_their_limits()
        machine.each_has_a_true_text_and_then_one_outcome()
        states.add(machine.state())
    machine.teardown()
    return states


def test_walks_through_ten_thousand_states(
    record_property: Callable[[str, object], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # the faults are on purpose
    states: set[int] = set()
    for seed in range(size(130, 5000)):
        print(f"walk {seed}")  # shown if it fails
        states |= walk(seed, 200)
    record_property("figure", f"{len(states):,} different states of the engine")
    assert len(states) > 10_000
