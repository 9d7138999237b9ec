"""A runner that fails again and again is replaced; if the next one fails too, the engine is broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fakes import TIMEOUT, Bench, EchoRunner, EndlessRunner, ask, wait_until
from test_engine import end_of, reason, wait_for_text
from test_watchdog import BadRunner, NeverOpenRunner, Pool

from chatstream_flask.engine.failure_streak import MAX_FAILURES
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.runner import NewIds, Runner
from chatstream_flask.engine.sequence import Chunk, Sequence
from chatstream_flask.errors import EngineBroken, EngineFailing
from chatstream_flask.monitoring.health import is_ready, readiness


class FailsToDecode(EchoRunner):
    """Fails at the first `num_failures` decode steps, those of test prompts included."""

    def __init__(self, num_failures: int = 10**9) -> None:
        super().__init__()
        self.num_left = num_failures
        self.closed = threading.Event()

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if self.num_left:
            self.num_left -= 1
            raise RuntimeError("device-side assert triggered")
        return super().decode(sequences)

    def close(self) -> None:
        self.closed.set()


class FailsToPrefill(EndlessRunner):
    """Fails for each prompt that begins with "!"."""

    def prefill(self, chunks: list[Chunk]) -> NewIds:
        if any(chunk.sequence.token_ids[0] == ord("!") for chunk in chunks):
            raise IndexError("index out of range in self")
        return super().prefill(chunks)


class FailsToDecodeExclamationMarks(EndlessRunner):
    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        if any(sequence.token_ids[0] == ord("!") for sequence in sequences):
            raise IndexError("index out of range in self")
        return super().decode(sequences)


class NotANumber(EchoRunner):
    def next_id(self, sequence: Sequence) -> int:
        return -1


@contextmanager
def running(*runners: Runner, **config: int) -> Iterator[Pool]:
    pool = Pool(*runners, **config)
    pool.engine.start()
    try:
        yield pool
    finally:
        for runner in pool.made:
            if isinstance(runner, NeverOpenRunner):
                runner.wakes.set()
        pool.engine.stop()
        pool.engine.check_idle()


def ask_one_by_one(pool: Pool, *texts: str) -> list[FinishReason | None]:
    """Send each request when the one before has ended; return how they ended, None for a refused one."""
    ends: list[FinishReason | None] = []
    for text in texts:
        try:
            (request,) = pool.submit(text)
        except (EngineFailing, EngineBroken):
            ends.append(None)
        else:
            ends.append(reason(request))
    return ends


def wait_until_replaced(pool: Pool, num: int = 1) -> None:
    wait_until(lambda: pool.engine.stats.num_replaced.get("failing") == num and not pool.engine.is_failing)


@pytest.mark.parametrize("make_runner", [FailsToDecode, NotANumber])
def test_runner_that_always_fails_ends_in_broken(make_runner: Callable[[], EchoRunner]) -> None:
    """Later requests are refused; before, 200 of 200 were accepted and failed."""
    with running(make_runner(), make_runner(), max_running=1) as pool:
        assert ask_one_by_one(pool, *["a"] * MAX_FAILURES) == [FinishReason.ERROR] * MAX_FAILURES
        wait_until_replaced(pool)
        assert ask_one_by_one(pool, *["b"] * MAX_FAILURES) == [FinishReason.ERROR] * MAX_FAILURES
        pool.wait_until_broken()
        assert ask_one_by_one(pool, *["c"] * 200) == [None] * 200
        assert readiness(pool.engine) == "broken"
        assert pool.engine.stats.num_finished == {FinishReason.ERROR: 2 * MAX_FAILURES}
        assert pool.engine.stats.num_replaced == {"failing": 1}


def test_the_reason_of_a_broken_engine_says_that_a_new_thread_did_not_help() -> None:
    with running(FailsToDecode(), FailsToDecode(), max_running=1) as pool:
        ask_one_by_one(pool, *["a"] * MAX_FAILURES)
        wait_until_replaced(pool)
        ask_one_by_one(pool, *["a"] * MAX_FAILURES)
        pool.wait_until_broken()
        assert pool.engine.broken == "generation thread 1 failed 3 times in a row, as the one before it did"


def test_runner_that_fails_five_times_and_then_works_is_replaced_and_serves() -> None:
    """The failures go on in the new thread: three, then two."""
    failing, successor = FailsToDecode(MAX_FAILURES + 1), FailsToDecode(2)
    with running(failing, successor, max_running=1) as pool:
        ask_one_by_one(pool, "a", "a", "a")
        wait_until_replaced(pool)
        assert failing.closed.is_set()  # its memory was free before the next one opened
        ends = ask_one_by_one(pool, "a", "a", "b", "c")
        assert ends == [FinishReason.ERROR] * 2 + [FinishReason.STOP] * 2
        assert (pool.engine.broken, is_ready(pool.engine)) == (None, True)


def test_success_lets_a_later_failing_runner_be_replaced_again() -> None:
    runners = [FailsToDecode(MAX_FAILURES + 1) for _ in range(2)]
    with running(*runners, max_running=1) as pool:
        ask_one_by_one(pool, "a", "a", "a")
        wait_until_replaced(pool)
        runners[1].num_left = 0
        assert ask_one_by_one(pool, "works") == [FinishReason.STOP]
        runners[1].num_left = MAX_FAILURES + 1
        ask_one_by_one(pool, "a", "a", "a")
        wait_until_replaced(pool, 2)
        assert ask_one_by_one(pool, "works again") == [FinishReason.STOP]
        assert pool.engine.broken is None


def test_nothing_is_accepted_while_a_failing_runner_is_replaced() -> None:
    opening = NeverOpenRunner(threading.Event())
    with running(FailsToDecode(), opening, max_running=1) as pool:
        *failed, waiting = pool.submit("a", "a", "a", "waiting")
        assert [reason(r) for r in failed] == [FinishReason.ERROR] * 3
        assert opening.opens.wait(TIMEOUT)
        assert (readiness(pool.engine), is_ready(pool.engine)) == ("thread_failing", False)
        with pytest.raises(EngineFailing):
            pool.engine.reserve()
        assert pool.engine.stats.num_refused == {"engine_failing": 1}
        opening.wakes.set()
        assert (reason(waiting), waiting.text) == (FinishReason.STOP, "waiting")
        wait_until(lambda: is_ready(pool.engine))


def test_requests_that_wait_get_an_outcome_when_the_engine_breaks() -> None:
    with running(FailsToDecode(), BadRunner(), max_running=1) as pool:
        requests = pool.submit(*"abcdef")
        assert [reason(r) for r in requests] == [FinishReason.ERROR] * 6
        assert {end_of(r).error for r in requests} == {"generation failed"}
        pool.wait_until_broken()


def test_the_other_thread_serves_while_a_failing_one_is_replaced() -> None:
    opening = NeverOpenRunner(threading.Event())
    with running(FailsToDecode(), EchoRunner(), opening, max_running=2, num_of_generation_threads=2) as pool:
        while not opening.opens.is_set():
            ask_one_by_one(pool, "a", "b")
        assert ask_one_by_one(pool, "one", "two") == [FinishReason.STOP] * 2
        assert readiness(pool.engine) == "thread_failing"


def test_prompts_that_fail_while_another_reply_goes_on_are_no_fault_of_the_runner() -> None:
    with running(FailsToPrefill(), max_running=2) as pool:
        (going_on,) = pool.submit("a", max_new_tokens=10**9)
        for _ in range(3 * MAX_FAILURES):
            (bad,) = pool.submit("!")
            assert reason(bad) is FinishReason.ERROR
            wait_for_more(going_on)
        pool.engine.cancel(going_on)
        assert reason(going_on) is FinishReason.CANCELLED
        assert pool.engine.stats.num_replaced == {}


@pytest.mark.parametrize("make_runner", [FailsToPrefill, FailsToDecodeExclamationMarks])
def test_a_prompt_that_always_fails_is_no_fault_of_a_runner_that_computes_others(
    make_runner: Callable[[], EchoRunner],
) -> None:
    """Sent six times to an idle engine, it ended in "broken"."""
    with running(make_runner(), max_running=1) as pool:
        assert ask_one_by_one(pool, *["!"] * 20) == [FinishReason.ERROR] * 20
        (works,) = pool.submit("a", max_new_tokens=2)
        assert reason(works) is FinishReason.LENGTH
        assert pool.engine.stats.num_replaced == {}
        assert is_ready(pool.engine)


def test_the_test_prompt_leaves_nothing_that_a_later_prompt_could_reuse() -> None:
    """EchoRunner checks that what a sequence calls cached is in its slot."""
    with running(FailsToPrefill(), max_running=2) as pool:
        (first,) = pool.submit("abc", max_new_tokens=2, cache_owner="one")
        assert reason(first) is FinishReason.LENGTH
        ask_one_by_one(pool, *["!"] * MAX_FAILURES)
        (second,) = pool.submit("abcd", max_new_tokens=2, cache_owner="one")
        assert reason(second) is FinishReason.LENGTH
        assert second.num_reused == 0


def test_reply_of_one_token_is_a_success() -> None:
    """It needs no decode step."""
    bench = Bench(slots=[1], make_runner=FailsToPrefill)
    (worker,) = bench.workers
    bench.submit(ask("!"), ask("a", max_new_tokens=1))
    bench.step()
    assert worker.failures.num_failures == 1
    bench.step()
    assert worker.failures.num_failures == 0


def test_text_or_grammar_of_a_request_is_no_fault_of_the_runner() -> None:
    class NoTokenFits(NotANumber):
        def text_decoder(self, request: GenerationRequest) -> Unreadable:  # type: ignore[override]
            return Unreadable()

    class Unreadable:
        def push(self, token_id: int) -> str:
            raise ValueError("no text")

        def finish(self) -> str:
            return ""

    class UnreadableRunner(EchoRunner):
        def text_decoder(self, request: GenerationRequest) -> Unreadable:  # type: ignore[override]
            return Unreadable()

    for make_runner, grammar in ((NoTokenFits, "a"), (UnreadableRunner, None)):
        bench = Bench(slots=[1], make_runner=make_runner)
        bench.submit(*[ask("a", grammar=grammar) for _ in range(MAX_FAILURES)])
        bench.finish_all()
        assert [reason(r) for r in bench.ended] == [FinishReason.ERROR] * MAX_FAILURES
        assert bench.workers[0].failures.num_failures == 0


def wait_for_more(request: GenerationRequest) -> None:
    wait_for_text(request)
    assert request.read(len(request.text), TIMEOUT)[0]
