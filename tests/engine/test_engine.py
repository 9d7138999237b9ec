"""Engine: with real threads and fake runners."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fakes import TIMEOUT, EchoRunner, EndlessRunner, GatedRunner, ask, text_of

from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.engine.request import GenerationRequest, Status
from chatstream_flask.engine.runner import Runner
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.errors import ChatStreamError, ConfigError, NotAccepting, TooManyRequests

StartEngine = Callable[..., Engine]


@pytest.fixture
def start_engine() -> Iterator[StartEngine]:
    engines: list[Engine] = []

    def start(make_runner: Callable[[], Runner] = EchoRunner, **config: int) -> Engine:
        engine = Engine(EngineConfig(**config), lambda index: make_runner())
        engines.append(engine)
        engine.start()
        return engine

    yield start
    for engine in engines:
        for worker in engine.workers:
            if isinstance(worker.runner, GatedRunner):
                worker.runner.gate.set()
        engine.stop()
        engine.check_idle()


def submit(engine: Engine, *requests: GenerationRequest) -> None:
    for request in requests:
        reservation = engine.reserve()
        try:
            engine.submit(request, reservation)
        except ChatStreamError:
            reservation.close()
            raise


def end_of(request: GenerationRequest) -> Outcome:
    """Wait for the outcome and return it."""
    text, outcome = "", None
    while outcome is None:
        new, outcome = request.read(len(text), TIMEOUT)
        assert new or outcome, f"nothing came of {request!r}"
        text += text_of(new)
    assert text == request.text
    return outcome


def reason(request: GenerationRequest) -> FinishReason:
    return end_of(request).finish_reason


def gate_of(engine: Engine) -> threading.Event:
    runner = engine.workers[0].runner
    assert isinstance(runner, GatedRunner)
    return runner.gate


def wait_for_text(request: GenerationRequest) -> None:
    assert request.read(0, TIMEOUT)[0], f"{request!r} never ran"


def test_seven_are_accepted_and_the_eighth_is_refused(start_engine: StartEngine) -> None:
    engine = start_engine(GatedRunner, max_running=2, max_queue_size=5)
    requests = [ask(f"reply {i}") for i in range(7)]
    submit(engine, *requests)
    with pytest.raises(TooManyRequests) as refused:
        engine.reserve()
    assert 1 <= refused.value.retry_after <= 59
    gate_of(engine).set()
    assert [reason(r) for r in requests] == [FinishReason.STOP] * 7
    assert [r.text for r in requests] == [f"reply {i}" for i in range(7)]
    engine.check_idle()


def test_fifty_threads_get_exactly_seven_places(start_engine: StartEngine) -> None:
    engine = start_engine(GatedRunner, max_running=2, max_queue_size=5)
    barrier = threading.Barrier(50)

    def try_submit(i: int) -> GenerationRequest | None:
        request = ask(f"reply {i}")
        barrier.wait(TIMEOUT)
        try:
            submit(engine, request)
        except TooManyRequests:
            return None
        return request

    with ThreadPoolExecutor(50) as pool:
        accepted = [r for r in pool.map(try_submit, range(50)) if r is not None]
    assert len(accepted) == engine.num_accepted == 7
    gate_of(engine).set()
    assert {reason(r) for r in accepted} == {FinishReason.STOP}


def test_repr_and_position_show_the_queue(start_engine: StartEngine) -> None:
    engine = start_engine(GatedRunner, max_running=1)
    running, first, second = ask("abc"), ask("def"), ask("ghi")
    submit(engine, running)
    wait_for_text(running)
    submit(engine, first, second)
    assert repr(engine) == "<Engine [1/1 running, 2/5 queued]>"
    assert [engine.position(r) for r in (running, first, second)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match=r"not idle: .*1 slots held, 3 places taken"):
        engine.check_idle()
    engine.cancel(first)
    assert (engine.position(second), reason(first)) == (1, FinishReason.CANCELLED)


def test_eta_and_retry_after_come_from_the_last_replies(start_engine: StartEngine) -> None:
    engine = start_engine()
    assert (engine.eta_sec(1), engine.retry_after_sec) == (None, 1)
    request = ask("abc")
    submit(engine, request)
    outcome = end_of(request)
    assert engine.eta_sec(4) == pytest.approx(4 * (outcome.total_sec - outcome.queue_sec) / 2)
    assert engine.retry_after_sec == 1


def test_cancel_a_running_and_a_finished_one(start_engine: StartEngine) -> None:
    engine = start_engine(EndlessRunner)
    request = ask("abc", max_new_tokens=10**9)
    submit(engine, request)
    wait_for_text(request)
    engine.cancel(request, FinishReason.DISCONNECTED)
    assert reason(request) is FinishReason.DISCONNECTED
    engine.cancel(request)
    assert reason(request) is FinishReason.DISCONNECTED


def test_failing_decode_ends_the_running_and_the_thread_lives_on(start_engine: StartEngine) -> None:
    engine = start_engine(BreakingRunner)
    (thread,) = engine.workers
    requests = [ask("break"), ask("bystander")]
    submit(engine, *requests)
    assert reason(requests[0]) is FinishReason.ERROR
    end_of(requests[1])  # either in the same step or later
    later = ask("later")
    submit(engine, later)
    assert (reason(later), later.text) == (FinishReason.STOP, "later")
    assert engine.workers == [thread] and thread.is_alive


def test_failing_decode_ends_all_of_the_step(start_engine: StartEngine) -> None:
    engine = start_engine(BreakingGatedRunner)
    first, second = ask("quiet"), ask("break")
    submit(engine, first, second)
    gate_of(engine).set()
    assert [end_of(r).error for r in (first, second)] == ["generation failed"] * 2


def test_stop_gives_every_accepted_request_one_outcome(start_engine: StartEngine) -> None:
    engine = start_engine(EndlessRunner)
    notified: Counter[str] = Counter()
    requests = [
        ask("x", max_new_tokens=10**9, after_done=lambda r, o: notified.update([r.id])) for _ in range(7)
    ]
    submit(engine, *requests)
    wait_for_text(requests[0])
    engine.stop()
    engine.stop()
    assert [r.outcome and r.outcome.finish_reason for r in requests] == [FinishReason.SHUTDOWN] * 7
    assert notified == Counter({r.id: 1 for r in requests})
    assert engine.is_stopped and not engine.is_started
    with pytest.raises(NotAccepting):
        engine.reserve()


def test_stop_while_many_submit(start_engine: StartEngine) -> None:
    engine = start_engine(EchoRunner, max_queue_size=50)
    accepted: list[GenerationRequest] = []
    is_busy = threading.Event()

    def submit_until_refused() -> None:
        while True:
            request = ask("abc")
            try:
                submit(engine, request)
            except TooManyRequests:
                continue
            except NotAccepting:
                return
            accepted.append(request)
            is_busy.set()

    with ThreadPoolExecutor(4) as pool:
        submitters = [pool.submit(submit_until_refused) for _ in range(4)]
        assert is_busy.wait(TIMEOUT)
        engine.stop()
        for submitter in submitters:
            submitter.result(TIMEOUT)
    assert all(r.outcome is not None for r in accepted)


def test_start_after_stop_serves_again(start_engine: StartEngine) -> None:
    engine = start_engine()
    engine.stop()
    engine.start()
    request = ask("again")
    submit(engine, request)
    assert (reason(request), engine.is_stopped) == (FinishReason.STOP, False)


def test_drain_refuses_new_and_lets_the_accepted_finish(start_engine: StartEngine) -> None:
    engine = start_engine(GatedRunner, max_running=1)
    requests = [ask("abc"), ask("def"), ask("ghi")]
    submit(engine, *requests)
    reservation = engine.reserve()
    assert not engine.drain(timeout=0.001)
    with pytest.raises(NotAccepting):
        engine.reserve()
    with pytest.raises(NotAccepting):
        engine.submit(ask("late"), reservation)
    reservation.close()
    gate_of(engine).set()
    assert engine.drain(TIMEOUT)
    assert [reason(r) for r in requests] == [FinishReason.STOP] * 3


def test_a_drained_engine_is_not_started_by_a_request() -> None:
    """A server may be stopped before its first request."""
    engine = Engine(EngineConfig(), lambda index: EchoRunner())
    engine.begin_drain()
    engine.start(again=False)
    assert engine.is_draining and not engine.is_started
    with pytest.raises(NotAccepting):
        engine.reserve()
    engine.start()
    try:
        assert engine.is_started and not engine.is_draining
        engine.reserve().close()
    finally:
        engine.stop()


def test_start_is_done_once() -> None:
    made: list[int] = []

    def make_runner(index: int) -> Runner:
        made.append(index)
        return EchoRunner()

    config = EngineConfig(num_of_generation_threads=2)
    engine = Engine(config, make_runner)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: engine.start(), range(8)))
    workers = engine.workers
    engine.start()
    assert sorted(made) == [0, 1] and engine.workers == workers
    engine.stop()


def test_failed_start_leaves_no_thread_and_may_be_repeated() -> None:
    runners: list[Runner] = [EchoRunner(), BadRunner(), EchoRunner(), EchoRunner()]
    engine = Engine(EngineConfig(num_of_generation_threads=2), lambda index: runners.pop(0))
    with pytest.raises(ConfigError, match="too little memory"):
        engine.start()
    assert not engine.is_started and not engine.workers
    assert not [t for t in threading.enumerate() if t.name.startswith("chatstream-")]
    with pytest.raises(NotAccepting):
        engine.reserve()
    engine.start()
    assert engine.is_started
    engine.stop()


def test_request_for_an_engine_that_was_not_started_is_refused() -> None:
    engine = Engine(EngineConfig(), lambda index: EchoRunner())
    with closing(engine.reserve()) as reservation, pytest.raises(NotAccepting, match="not started"):
        engine.submit(ask("abc"), reservation)
    engine.stop()
    engine.check_idle()


def test_reader_sees_the_outcome_after_before_done(start_engine: StartEngine) -> None:
    engine = start_engine()
    began, go_on = threading.Event(), threading.Event()

    def keep(request: GenerationRequest, outcome: Outcome) -> None:
        began.set()
        assert go_on.wait(TIMEOUT)

    request = ask("abc", before_done=keep)
    submit(engine, request)
    assert began.wait(TIMEOUT)
    assert request.read(3, 0) == ([], None)
    assert (request.text, request.status) == ("abc", Status.FINISHED)
    go_on.set()
    assert reason(request) is FinishReason.STOP


def test_reply_that_could_not_be_kept_is_an_error(start_engine: StartEngine) -> None:
    engine = start_engine()
    notified: list[Outcome] = []
    request = ask("abc", before_done=fail, after_done=lambda request, outcome: notified.append(outcome))
    submit(engine, request)
    outcome = end_of(request)
    engine.stop()
    assert outcome.finish_reason is FinishReason.ERROR
    assert outcome.error == "the reply could not be stored; try again"
    assert notified == [outcome]


def test_failing_after_done_harms_nothing(start_engine: StartEngine) -> None:
    engine = start_engine()
    for text in ("abc", "def", "ghi"):
        request = ask(text, after_done=fail)
        submit(engine, request)
        assert (reason(request), request.text) == (FinishReason.STOP, text)


def test_two_threads_share_the_load(start_engine: StartEngine) -> None:
    engine = start_engine(EndlessRunner, max_running=4, num_of_generation_threads=2)
    requests = [ask("x", max_new_tokens=10**9) for _ in range(4)]
    submit(engine, *requests)
    for request in requests:
        wait_for_text(request)
    assert [len(worker.scheduler.running) for worker in engine.workers] == [2, 2]


def test_many_replies_over_two_threads_are_all_whole(start_engine: StartEngine) -> None:
    engine = start_engine(max_running=5, num_of_generation_threads=2, max_queue_size=95)
    requests = [ask(f"reply number {i} " + "x" * (i % 17)) for i in range(100)]
    submit(engine, *requests)
    for i, request in enumerate(requests):
        assert reason(request) is FinishReason.STOP
        assert request.text == f"reply number {i} " + "x" * (i % 17)


FORK = """
import os, threading
from fakes import EchoRunner, ask
from test_engine import end_of, submit
from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine

def serve(text):
    engine.start()
    request = ask(text)
    submit(engine, request)
    end_of(request)
    assert request.text == text

engine = Engine(EngineConfig(), lambda index: EchoRunner())
serve("parent")
left_over = engine.reserve()
if (pid := os.fork()) == 0:
    try:
        assert not engine.is_started and threading.active_count() == 1
        serve("child")
        engine.check_idle()  # the parent's reservation does not count here
        engine.stop()
        assert threading.active_count() == 1
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
serve("parent again")
left_over.close()
engine.stop()
"""


def test_child_of_a_fork_starts_its_own_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        cwd=Path(__file__).parents[1],
        env={"PYTHONPATH": f".:engine:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def fail(request: GenerationRequest, outcome: Outcome) -> None:
    raise ValueError("no")


class BadRunner(EchoRunner):
    def open(self) -> None:
        raise ConfigError("too little memory")


class BreakingRunner(EchoRunner):
    """Fails in a step that has the prompt "break"."""

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if any(s.request.prompt_ids == [ord(c) for c in "break"] for s in sequences):
            raise ValueError("the step broke")
        return super().decode(sequences)


class BreakingGatedRunner(BreakingRunner, GatedRunner):
    """Waits for the gate, so that a second request can join the first."""
