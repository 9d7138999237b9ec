"""GenerationRequest: a text that only grows, followed by one outcome."""

from __future__ import annotations

import threading

import pytest
from fakes import TIMEOUT, FakeClock, ask, text_of
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.engine.request import TRANSITIONS, GenerationRequest, Status

STOPPED = Outcome(finish_reason=FinishReason.STOP)


def move(request: GenerationRequest, status: Status) -> None:
    if status is Status.RUNNING:
        request.start()
    else:
        request.finish(FinishReason.STOP)


def in_status(status: Status) -> GenerationRequest:
    request = ask("hi")
    if status is not Status.WAITING:
        move(request, status)
    return request


@pytest.mark.parametrize("old", Status)
@pytest.mark.parametrize("new", [Status.RUNNING, Status.FINISHED])
def test_wrong_move_raises_and_changes_nothing(old: Status, new: Status) -> None:
    request = in_status(old)
    if new in TRANSITIONS[old]:
        move(request, new)
        assert request.status is new
        return
    with pytest.raises(RuntimeError, match=f"{old.name}.* cannot become {new.name}"):
        move(request, new)
    assert request.status is old


@given(pieces=st.lists(st.text("ab世😀", min_size=1, max_size=5)), offset=st.integers(0, 40))
def test_read_at_any_offset_gives_exactly_the_text(pieces: list[str], offset: int) -> None:
    request = ask("hi")
    for piece in pieces:
        request.add_text(piece)
    request.publish(STOPPED)
    rest, outcome = request.read(offset, 0)
    assert (text_of(rest), outcome) == ("".join(pieces)[offset:], STOPPED)
    assert request.text == "".join(pieces)


def test_two_readers_get_the_whole_text_while_it_is_written() -> None:
    request = ask("hi")
    texts = ["", ""]

    def read_all(i: int) -> None:
        outcome = None
        while outcome is None:
            new, outcome = request.read(len(texts[i]), TIMEOUT)
            texts[i] += text_of(new)

    readers = [threading.Thread(target=read_all, args=(i,)) for i in range(2)]
    for reader in readers:
        reader.start()
    for i in range(200):
        request.add_text(f"{i} ")
    request.publish(STOPPED)
    for reader in readers:
        reader.join(TIMEOUT)
    assert texts == ["".join(f"{i} " for i in range(200))] * 2


def test_read_gives_nothing_when_nothing_came() -> None:
    request = ask("hi")
    assert request.read(0, 0) == ([], None)
    request.add_text("abc")
    assert request.read(3, 0.001) == ([], None)
    assert request.read(99, 0) == ([], None)


def test_second_outcome_raises_and_the_first_stays() -> None:
    request = ask("hi")
    request.publish(STOPPED)
    with pytest.raises(RuntimeError, match="already has its outcome"):
        request.publish(Outcome(finish_reason=FinishReason.CANCELLED))
    assert request.outcome is STOPPED


def test_first_requested_stop_counts() -> None:
    clock = FakeClock()
    request = ask("hi", clock=clock, timeout_sec=5)
    assert request.stop_reason is None
    request.request_stop(FinishReason.DISCONNECTED)
    request.request_stop(FinishReason.CANCELLED)
    clock.advance(10)
    assert request.stop_reason is FinishReason.DISCONNECTED


def test_deadline_is_a_stop_reason() -> None:
    clock = FakeClock(100)
    request = ask("hi", clock=clock, timeout_sec=5)
    clock.advance(4.9)
    assert request.stop_reason is None
    clock.advance(0.1)
    assert request.stop_reason is FinishReason.TIMEOUT


@pytest.mark.parametrize("now", [0, 100])
def test_outcome_tells_tokens_and_times(now: float) -> None:
    clock = FakeClock(now)
    request = ask("hello", clock=clock)
    request.start()
    clock.advance(2)
    for _ in range(5):
        request.count_token(7)
        clock.advance(1)
    outcome = request.finish(FinishReason.LENGTH)
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (5, 5)
    assert (outcome.queue_sec, outcome.first_token_sec, outcome.total_sec) == (0, 2, 7)
    assert outcome.tokens_per_sec == pytest.approx(4 / 5)
    assert outcome.is_success


def test_one_that_never_ran_was_queued_to_the_end() -> None:
    clock = FakeClock()
    request = ask("hi", clock=clock)
    clock.advance(3)
    outcome = request.finish(FinishReason.CANCELLED)
    assert (outcome.queue_sec, outcome.first_token_sec, outcome.tokens_per_sec) == (3, None, None)
    assert not outcome.is_success


def test_seed_is_the_given_one_or_new_each_time() -> None:
    assert ask("hi", seed=7).seed == 7
    assert ask("hi").seed != ask("hi").seed


def test_repr_shows_the_state() -> None:
    request = ask("hi")
    request.start()
    request.count_token(7)
    assert repr(request) == f"<GenerationRequest {request.id[:8]} RUNNING tokens=1>"
