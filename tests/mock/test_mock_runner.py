"""MockRunner: texts, tokens and rate of mock replies."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
from fakes import TIMEOUT, Bench, FakeClock, ask, text_of
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.config import EngineConfig, SamplingParams
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.errors import ConfigError
from chatstream_flask.mock.mock_runner import (
    MAX_WAIT_SEC,
    MockParams,
    MockRunner,
    decode_mock_prompt,
    encode_mock_prompt,
)
from chatstream_flask.mock.phrases import LONG, ROUND, split_mock_text

ALPHABET = "ab,. \n\x1e\u3000世界ไๆ😀é"


def bench_of(clock: FakeClock, **params: Any) -> Bench:
    runner = MockRunner(MockParams(**params), clock=clock, wait=clock.wait)
    runner.open()
    return Bench(slots=[2], make_runner=lambda: runner)


def say(*messages: str, **kwargs: Any) -> GenerationRequest:
    request = ask("", **kwargs)
    request.prompt_ids = encode_mock_prompt(list(messages))
    return request


def reply_to(*messages: str, type: str) -> str:
    clock = FakeClock()
    bench = bench_of(clock, type=type)
    request = say(*messages, clock=clock, max_new_tokens=1000)
    bench.submit(request)
    bench.finish_all()
    assert request.outcome and request.outcome.finish_reason is FinishReason.STOP
    return request.text


@pytest.mark.parametrize("turn", [1, 2, 12, 13])
def test_round_says_the_next_sentence_at_each_turn(turn: int) -> None:
    text = reply_to(*["hi"] * turn, type="round")
    assert text == ROUND[(turn - 1) % 12]
    assert text.startswith(f"{(turn - 1) % 12 + 1}. ")


def test_long_says_a_story_that_the_default_length_does_not_cut() -> None:
    assert reply_to("hi", type="long") == LONG
    assert 200 < len(split_mock_text(LONG)) < SamplingParams().max_new_tokens


@pytest.mark.parametrize(
    "message", ["hello there", " two  spaces ", "こんにちは、世界", "", "a\x1eb", "line\nline\n"]
)
def test_echo_says_the_last_message(message: str) -> None:
    assert reply_to("before", message, type="echo") == message.replace("\x1e", " ")


def test_a_token_is_a_word_or_a_character_without_spaces() -> None:
    assert split_mock_text("Hello, big world. ") == ["Hello,", " big", " world.", " "]
    assert split_mock_text("今日は, hi 世界") == ["今", "日", "は", ",", " hi", " 世", "界"]


@given(st.text(ALPHABET))
def test_joined_tokens_are_the_text(text: str) -> None:
    tokens = split_mock_text(text)
    assert "".join(tokens) == text
    assert all(tokens)


@given(st.lists(st.text(ALPHABET), min_size=1))
def test_prompt_tells_every_message(messages: list[str]) -> None:
    assert decode_mock_prompt(encode_mock_prompt(messages)) == [m.replace("\x1e", " ") for m in messages]


def times_of(bench: Bench, clock: FakeClock, request: GenerationRequest, *pauses: float) -> list[float]:
    """Return when each token came; the first steps are followed by the given seconds of other work."""
    times: list[float] = []
    pause = iter(pauses)
    while request.outcome is None:
        bench.step()
        times += [round(clock.now, 6)] * (request.num_generated - len(times))
        clock.advance(next(pause, 0))
    return times


def test_a_token_comes_at_each_tick_after_the_initial_wait() -> None:
    clock = FakeClock(50)  # long after the runner was opened
    bench = bench_of(clock, type="echo", initial_wait_sec=0.25, time_per_token_sec=0.1)
    request = say("one two three", clock=clock)
    clock.advance(7)
    bench.submit(request)
    assert times_of(bench, clock, request) == [57.35, 57.45, 57.55, 57.65]


@pytest.mark.parametrize(
    ("pauses", "times"),
    [
        ((0.03, 0.03, 0.03), [0.1, 0.2, 0.3, 0.4]),
        ((0.13,), [0.1, 0.23, 0.3, 0.4]),
        ((5.0,), [0.1, 5.1, 5.1, 5.2]),  # one tick is caught up, not fifty
    ],
)
def test_rate_does_not_drift_when_steps_take_time(pauses: list[float], times: list[float]) -> None:
    clock = FakeClock()
    bench = bench_of(clock, type="echo", time_per_token_sec=0.1)
    request = say("one two three", clock=clock)
    bench.submit(request)
    assert times_of(bench, clock, request, *pauses) == times


def test_one_that_joins_waits_only_for_itself() -> None:
    clock = FakeClock()
    bench = bench_of(clock, type="echo", initial_wait_sec=0.25, time_per_token_sec=0.1)
    first, second = say("a b c d e", clock=clock), say("x y", clock=clock)
    bench.submit(first)
    while not first.text:
        bench.step()
    bench.submit(second)
    texts = []
    while second.outcome is None:
        bench.step()
        texts.append((first.text, second.text))
    assert texts == [("a b", ""), ("a b c", ""), ("a b c d", "x"), ("a b c d e", "x y"), ("a b c d e", "x y")]
    assert first.outcome is not None


def test_without_time_per_token_it_still_waits_for_the_first() -> None:
    clock = FakeClock()
    bench = bench_of(clock, type="echo", initial_wait_sec=1.0, time_per_token_sec=0)
    request = say("one two three", clock=clock)
    bench.submit(request)
    assert times_of(bench, clock, request) == [1.0] * 4
    assert len(clock.waits) <= 1.0 / MAX_WAIT_SEC + 2  # it does not spin


def test_long_waits_come_in_parts_so_that_a_cancel_is_noticed() -> None:
    clock = FakeClock()
    bench = bench_of(clock, initial_wait_sec=60, time_per_token_sec=60)
    request = say("hi", clock=clock)
    bench.submit(request)
    bench.step()
    bench.cancel(request)
    bench.step()
    assert request.outcome is not None
    assert max(clock.waits) <= MAX_WAIT_SEC


def test_close_ends_the_wait() -> None:
    runner = MockRunner(MockParams(time_per_token_sec=0))
    runner.open()
    runner.close()
    runner.close()
    assert repr(runner) == "<MockRunner round [0 replies]>"


def test_replies_go_with_their_requests() -> None:
    clock = FakeClock()
    bench = bench_of(clock, type="long")
    requests = [say("hi", clock=clock) for _ in range(2)]
    bench.submit(*requests)
    bench.step()
    assert repr(bench.workers[0].runner) == "<MockRunner long [2 replies]>"
    for request in requests:
        bench.cancel(request)
    bench.step()
    del request, requests[:], bench.ended[:]
    gc.collect()
    assert repr(bench.workers[0].runner) == "<MockRunner long [0 replies]>"


def test_it_serves_in_an_engine() -> None:
    engine = Engine(EngineConfig(), lambda index: MockRunner(MockParams.of({"time_per_token_sec": 0})))
    engine.start()
    request = say("hi", "again")
    engine.submit(request, engine.reserve())
    text, outcome = "", None
    while outcome is None:
        new, outcome = request.read(len(text), TIMEOUT)
        assert new or outcome
        text += text_of(new)
    engine.stop()
    assert text == ROUND[1]


@pytest.mark.parametrize(
    ("given_params", "message"),
    [
        ({"mock_type": "echo"}, "mock_type; allowed: initial_wait_sec, time_per_token_sec, type"),
        ({"type": "Echo"}, "must be one of round, long, echo, reasoning, not 'Echo'"),
        ({"initial_wait_sec": -1}, "initial_wait_sec must be between 0 and 3600, not -1"),
        ({"time_per_token_sec": float("nan")}, "time_per_token_sec must be between 0 and 3600, not nan"),
        ({"time_per_token_sec": "0.1"}, "time_per_token_sec must be a number, not '0.1'"),
    ],
)
def test_wrong_params_are_named(given_params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MockParams.of(given_params)


def test_defaults() -> None:
    assert MockParams.of({}) == MockParams(type="round", initial_wait_sec=0, time_per_token_sec=0.1)


def test_it_needs_no_torch() -> None:
    code = """
import sys
import chatstream_flask.engine.engine
from chatstream_flask.mock.mock_runner import MockParams, MockRunner
MockRunner(MockParams()).open()
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
