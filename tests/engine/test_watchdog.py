"""Watchdog and pool: worker threads that hang, die or cannot be replaced, and their requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from fakes import TIMEOUT, EchoRunner, EndlessRunner, FakeClock, ask, wait_until
from test_engine import end_of, reason, submit, wait_for_text

from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.runner import Runner
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.engine.watchdog import SUSPENDED_SEC
from chatstream_flask.engine.worker_thread import FIRST_STEP_FACTOR
from chatstream_flask.errors import ConfigError, EngineBroken
from chatstream_flask.monitoring.health import readiness

HANG = "hang"  # the prompt whose decode step hangs
HUNG_AFTER = 30.0


class HangingRunner(EchoRunner):
    """Hangs in a step that has the prompt "hang", until the test wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Event()
        self.wakes = threading.Event()
        self.closed = threading.Event()

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if any(has_prompt(s, HANG) and s.num_cached > s.num_prompt for s in sequences):
            self.hangs.set()
            assert self.wakes.wait(TIMEOUT)
        return super().decode(sequences)

    def close(self) -> None:
        self.closed.set()


class HangingPairRunner(HangingRunner):
    """Hangs once a second request has joined."""

    def next_id(self, sequence: Sequence) -> int:
        return ord("a") if has_prompt(sequence, HANG) else super().next_id(sequence)

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        return super().decode(sequences) if len(sequences) == 2 else EchoRunner.decode(self, sequences)


class DyingRunner(EchoRunner):
    def __init__(self) -> None:
        super().__init__()
        self.may_die = threading.Event()
        self.may_die.set()

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        for sequence in sequences:
            if has_prompt(sequence, "die"):
                assert self.may_die.wait(TIMEOUT)
                raise SystemExit
        return super().decode(sequences)


class DiesAlwaysRunner(EchoRunner):
    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        raise SystemExit


class DyingEndlessRunner(DyingRunner, EndlessRunner): ...


class BadRunner(EchoRunner):
    def open(self) -> None:
        raise ConfigError("the device is lost")


class NeverOpenRunner(EchoRunner):
    """Hangs while opening, like a device that does not respond."""

    def __init__(self, wakes: threading.Event) -> None:
        super().__init__()
        self.wakes = wakes
        self.opens = threading.Event()

    def open(self) -> None:
        self.opens.set()
        assert self.wakes.wait(TIMEOUT)


def has_prompt(sequence: Sequence, text: str) -> bool:
    return sequence.request.prompt_ids == [ord(char) for char in text]


class Pool:
    """An engine whose threads get the given runners, in this order, and then EchoRunners."""

    def __init__(self, *runners: Runner, **config: int) -> None:
        self.clock = FakeClock()
        self.runners = list(runners)
        self.made: list[Runner] = []
        self.positions: list[int] = []  # that the runners were made for
        self.make_error: Exception | None = None
        self.engine = Engine(EngineConfig(**config), self.make_runner, clock=self.clock)
        self.engine.hung_after_sec = HUNG_AFTER

    def make_runner(self, position: int) -> Runner:
        if self.make_error is not None:
            raise self.make_error
        self.positions.append(position)
        self.made.append(self.runners.pop(0) if self.runners else EchoRunner())
        return self.made[-1]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a check of the watchdog each second."""
        pool = self.engine._run.pool
        assert pool is not None
        for _ in range(int(seconds)):
            self.clock.advance(1)
            pool.watchdog.check()

    def submit(self, *texts: str, **kwargs: object) -> list[GenerationRequest]:
        requests = [ask(text, **kwargs) for text in texts]
        submit(self.engine, *requests)
        return requests

    def wait_until_broken(self) -> None:
        wait_until(lambda: self.engine.broken is not None)


StartPool = Callable[..., Pool]


@pytest.fixture
def start_pool() -> Iterator[StartPool]:
    pools: list[Pool] = []

    def start(*runners: Runner, **config: int) -> Pool:
        pools.append(Pool(*runners, **config))
        pools[-1].engine.start()
        return pools[-1]

    yield start
    for pool in pools:
        for runner in pool.made:
            if isinstance(runner, HangingRunner | NeverOpenRunner):
                runner.wakes.set()
        pool.engine.stop()
        pool.engine.check_idle()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("chatstream-")])


def test_hung_thread_is_replaced_and_its_requests_end(
    start_pool: StartPool, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = HangingPairRunner()
    pool = start_pool(hanging, max_running=2)
    (worker,) = pool.engine.workers
    hung, beside, waiting = pool.submit(HANG, "beside", "waiting", max_new_tokens=10**9)
    assert hanging.hangs.wait(TIMEOUT)
    pool.pass_time(HUNG_AFTER)
    assert pool.engine.workers == [worker]
    pool.pass_time(1)
    for request in (hung, beside):
        assert (end_of(request).error, reason(request)) == ("generation failed", FinishReason.ERROR)
    assert (reason(waiting), waiting.text) == (FinishReason.STOP, "waiting")
    assert pool.engine.workers != [worker]
    assert pool.engine.stats.num_replaced == {"hung": 1}
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "has made no step for 31.0 s; its 2 replies end; its stack:\n" in record.message
    assert "in decode" in record.message and "self.wakes.wait" in record.message


def test_successor_is_on_the_device_of_the_hung_one(start_pool: StartPool) -> None:
    hanging = [HangingRunner(), HangingRunner()]
    pool = start_pool(*hanging, num_of_generation_threads=2, num_devices=2)
    pool.submit(HANG, HANG)
    assert all(runner.hangs.wait(TIMEOUT) for runner in hanging)
    pool.pass_time(HUNG_AFTER + 1)
    assert pool.positions == [0, 1, 0, 1]


def test_hung_thread_that_moves_again_does_no_harm(start_pool: StartPool) -> None:
    hanging = HangingRunner()
    pool = start_pool(hanging, max_running=1)
    (hung,) = pool.submit(HANG)
    assert hanging.hangs.wait(TIMEOUT)
    pool.pass_time(HUNG_AFTER + 1)
    outcome, text = end_of(hung), hung.text
    (later,) = pool.submit("served by the successor")
    assert reason(later) is FinishReason.STOP
    hanging.wakes.set()
    assert hanging.closed.wait(TIMEOUT)
    assert (hung.outcome, hung.text) == (outcome, text)
    assert pool.engine.num_running == 0
    (last,) = pool.submit("still served")
    assert (reason(last), last.text) == (FinishReason.STOP, "still served")
    assert pool.engine.stats.num_finished == {FinishReason.ERROR: 1, FinishReason.STOP: 2}


def test_slow_first_step_is_no_fault(start_pool: StartPool) -> None:
    class SlowToBegin(HangingRunner):
        def decode(self, sequences: list[Sequence]) -> list[list[int]]:
            self.hangs.set()
            assert self.wakes.wait(TIMEOUT)
            return EchoRunner.decode(self, sequences)

    slow = SlowToBegin()
    pool = start_pool(slow)
    (request,) = pool.submit("abc")
    assert slow.hangs.wait(TIMEOUT)
    pool.pass_time(FIRST_STEP_FACTOR * HUNG_AFTER)
    slow.wakes.set()
    assert reason(request) is FinishReason.STOP
    assert pool.engine.stats.num_replaced == {}


def test_idle_thread_is_no_fault(start_pool: StartPool) -> None:
    pool = start_pool()
    (request,) = pool.submit("abc")
    assert reason(request) is FinishReason.STOP
    wait_until(lambda: pool.engine.workers[0].is_idle)
    pool.pass_time(10 * HUNG_AFTER)
    (request,) = pool.submit("def")
    assert reason(request) is FinishReason.STOP
    assert pool.engine.stats.num_replaced == {}


def test_drained_thread_is_no_fault(start_pool: StartPool) -> None:
    pool = start_pool()
    (worker,) = pool.engine.workers
    assert pool.engine.drain(TIMEOUT) and worker.join(TIMEOUT)
    pool.pass_time(10 * HUNG_AFTER)
    assert (pool.engine.workers, pool.engine.broken) == ([worker], None)


def test_process_that_stood_still_is_no_fault_of_a_thread(start_pool: StartPool) -> None:
    """As after SIGSTOP, or when the machine was suspended."""
    hanging = HangingRunner()
    pool = start_pool(hanging)
    (request,) = pool.submit(HANG)
    assert hanging.hangs.wait(TIMEOUT)
    pool.clock.advance(max(HUNG_AFTER * 10, SUSPENDED_SEC + 1))
    pool.pass_time(HUNG_AFTER - 1)
    hanging.wakes.set()
    assert reason(request) is FinishReason.STOP
    assert pool.engine.stats.num_replaced == {}


def test_dead_thread_is_replaced_at_once(start_pool: StartPool, caplog: pytest.LogCaptureFixture) -> None:
    pool = start_pool(DyingRunner(), max_running=1)
    dies, waiting = pool.submit("die", "waiting")
    assert reason(dies) is FinishReason.ERROR
    assert (reason(waiting), waiting.text) == (FinishReason.STOP, "waiting")
    assert pool.engine.stats.num_replaced == {"died": 1}
    assert "SystemExit" in caplog.text and "its 1 replies end" in caplog.text


def test_other_threads_go_on_while_one_is_replaced(start_pool: StartPool) -> None:
    wakes = threading.Event()
    opening = NeverOpenRunner(wakes)
    pool = start_pool(DyingRunner(), EchoRunner(), opening, max_running=2, num_of_generation_threads=2)
    (dies,) = pool.submit("die")
    while reason(dies) is not FinishReason.ERROR:  # the other thread took it
        (dies,) = pool.submit("die")
    assert opening.opens.wait(TIMEOUT)
    assert readiness(pool.engine) == "thread_starting"
    requests = pool.submit("one", "two", "three")  # one after another, by the thread that is left
    assert [reason(r) for r in requests] == [FinishReason.STOP] * 3
    wakes.set()
    wait_until(lambda: all(worker.is_open for worker in pool.engine.workers))
    assert len(pool.engine.workers) == 2


def test_without_successor_the_engine_is_broken(start_pool: StartPool) -> None:
    hanging = HangingRunner()
    pool = start_pool(hanging, BadRunner(), max_running=1)
    hung, *waiting = pool.submit(HANG, "x", "y")
    assert hanging.hangs.wait(TIMEOUT)
    pool.pass_time(HUNG_AFTER + 1)
    assert [reason(r) for r in (hung, *waiting)] == [FinishReason.ERROR] * 3
    pool.wait_until_broken()
    assert pool.engine.broken == "generation thread 1 could not start: the device is lost"
    with pytest.raises(EngineBroken):
        pool.engine.reserve()
    assert pool.engine.stats.num_refused == {"engine_broken": 1}


def test_stopped_and_started_a_broken_engine_serves_again(start_pool: StartPool) -> None:
    pool = start_pool(DyingRunner(), BadRunner())
    pool.submit("die")
    pool.wait_until_broken()
    pool.engine.stop()
    pool.engine.start()
    (request,) = pool.submit("again")
    assert (reason(request), pool.engine.broken) == (FinishReason.STOP, None)


def test_successor_that_cannot_even_be_made_breaks_the_engine(start_pool: StartPool) -> None:
    dying = DyingRunner()
    pool = start_pool(dying, max_running=1)
    pool.make_error = RuntimeError("no memory")
    dying.may_die.clear()  # before the second request waits: a broken engine would not accept it
    dies, waiting = pool.submit("die", "waiting")
    dying.may_die.set()
    assert [reason(r) for r in (dies, waiting)] == [FinishReason.ERROR] * 2
    assert pool.engine.broken == "a generation thread could not be replaced: no memory"


def test_successor_that_never_opens_breaks_the_engine(start_pool: StartPool) -> None:
    opening = NeverOpenRunner(threading.Event())
    pool = start_pool(DyingRunner(), opening)
    (dies,) = pool.submit("die")
    assert reason(dies) is FinishReason.ERROR
    assert opening.opens.wait(TIMEOUT)
    (waiting,) = pool.submit("waiting")
    pool.pass_time(FIRST_STEP_FACTOR * HUNG_AFTER + 1)
    assert reason(waiting) is FinishReason.ERROR
    assert pool.engine.broken == "generation thread 1 has made no step for 121.0 s"


def test_threads_that_die_again_and_again_break_the_engine(start_pool: StartPool) -> None:
    """The successors die at their test prompt."""
    pool = start_pool(*[DiesAlwaysRunner() for _ in range(9)], max_running=1)
    (dies,) = pool.submit("any prompt")
    assert reason(dies) is FinishReason.ERROR
    pool.wait_until_broken()
    assert pool.engine.broken == (
        "5 generation threads were replaced within 10 minutes, and another one failed"
    )
    assert pool.engine.stats.num_replaced == {"died": 5}


def test_a_prompt_that_kills_its_thread_breaks_nothing_however_often_it_comes(start_pool: StartPool) -> None:
    """Sent six times, it ended in "broken"."""
    pool = start_pool(*[DyingRunner() for _ in range(9)], max_running=1)
    for _ in range(8):
        (dies,) = pool.submit("die")
        assert reason(dies) is FinishReason.ERROR
    (works,) = pool.submit("works")
    assert (reason(works), pool.engine.broken) == (FinishReason.STOP, None)


@pytest.mark.parametrize("is_for_ever", [False, True])
def test_a_prompt_that_hangs_breaks_the_engine_only_if_too_many_threads_never_move_again(
    start_pool: StartPool, is_for_ever: bool
) -> None:
    """What they hold of the memory is never freed. A prompt that hung for a while ended so, too."""
    hanging = [HangingRunner() for _ in range(6)]
    pool = start_pool(*hanging, max_running=1)
    for runner in hanging:
        works, hung = pool.submit("works", HANG)
        assert reason(works) is FinishReason.STOP
        assert runner.hangs.wait(TIMEOUT)
        (worker,) = pool.engine.workers
        pool.pass_time(HUNG_AFTER + 1)
        assert reason(hung) is FinishReason.ERROR
        if not is_for_ever:
            runner.wakes.set()
            assert worker.join(TIMEOUT)
    assert (pool.engine.broken is not None) == is_for_ever


def test_stop_ends_the_requests_of_a_hung_thread(start_pool: StartPool) -> None:
    hanging = HangingRunner()
    pool = start_pool(hanging)
    (hung,) = pool.submit(HANG)
    assert hanging.hangs.wait(TIMEOUT)
    pool.engine.stop(timeout=0.01)
    assert reason(hung) is FinishReason.SHUTDOWN
    hanging.wakes.set()
    assert hanging.closed.wait(TIMEOUT)


def test_healthy_threads_finish_what_they_have_when_another_breaks(start_pool: StartPool) -> None:
    pool = start_pool(
        DyingEndlessRunner(),
        DyingEndlessRunner(),
        BadRunner(),
        max_running=2,
        num_of_generation_threads=2,
    )
    (healthy,) = pool.submit("a", max_new_tokens=10**9)
    wait_for_text(healthy)
    (dies,) = pool.submit("die")
    assert reason(dies) is FinishReason.ERROR
    pool.wait_until_broken()
    text = healthy.text
    assert healthy.read(len(text), TIMEOUT)[0]
    pool.engine.cancel(healthy)
    assert reason(healthy) is FinishReason.CANCELLED
