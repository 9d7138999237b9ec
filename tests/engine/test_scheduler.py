"""Scheduler: used slots have no gap, and the oldest prompt comes first."""

from __future__ import annotations

import pytest
from fakes import CharDecoder, FakeClock, ask

from chatstream_flask.engine.detokenizer import Detokenizer
from chatstream_flask.engine.prefix_cache import SlotCopy
from chatstream_flask.engine.scheduler import MIN_CHUNK_LEN, Scheduler
from chatstream_flask.engine.sequence import Sequence


def add(scheduler: Scheduler, text: str, clock: FakeClock | None = None) -> Sequence:
    """Add a request without a cache owner, so that no prefix is kept."""
    sequence, copies = scheduler.add(ask(text, clock=clock or FakeClock()), Detokenizer(CharDecoder()))
    assert not copies
    return sequence


def slots(scheduler: Scheduler) -> list[int]:
    return [sequence.slot for sequence in scheduler.running]


def test_slots_are_given_in_order_until_all_are_taken() -> None:
    scheduler = Scheduler(2, 256)
    a, b = add(scheduler, "a"), add(scheduler, "b")
    assert (a.slot, b.slot, scheduler.num_free) == (0, 1, 0)
    with pytest.raises(RuntimeError, match=r"2/2 running.* has no free slot"):
        add(scheduler, "c")
    assert scheduler.running == [a, b]


def test_last_one_fills_the_hole() -> None:
    scheduler = Scheduler(3, 256)
    a, b, c = (add(scheduler, text) for text in "abc")
    c.num_cached = 7
    assert scheduler.remove(a) == SlotCopy(2, 0, 7)
    assert scheduler.running == [c, b]
    assert slots(scheduler) == [0, 1]
    assert scheduler.remove(b) is None  # the last sequence leaves no hole
    assert scheduler.remove(c) is None
    assert scheduler.num_free == 3


def test_remove_all() -> None:
    scheduler = Scheduler(2, 256)
    a, b = add(scheduler, "a"), add(scheduler, "b")
    assert scheduler.remove_all() == [a, b]
    assert repr(scheduler) == "<Scheduler [0/2 running]>"


def test_oldest_prompt_is_computed_first_in_chunks() -> None:
    scheduler = Scheduler(2, 4)
    old = add(scheduler, "x" * 9, FakeClock(1))
    new = add(scheduler, "y" * 3, FakeClock(2))
    chunks = []
    while chunk := scheduler.next_chunks(scheduler.prefill_chunk_len):
        (sequence, num_tokens), *_ = chunk
        sequence.num_cached += num_tokens
        chunks += chunk
    assert chunks == [(old, 4), (old, 4), (old, 1), (new, 3)]
    assert scheduler.next_chunks(0) == []


def test_several_short_prompts_are_computed_together() -> None:
    scheduler = Scheduler(4, 256)
    newest, oldest, middle = (add(scheduler, "x" * 50, FakeClock(at)) for at in (9, 1, 2))
    tiny = add(scheduler, "yy", FakeClock(0))
    assert scheduler.next_chunks(MIN_CHUNK_LEN + 60) == [(tiny, 2), (oldest, 50), (middle, 10)]
    assert scheduler.next_chunks(256) == [(tiny, 2), (oldest, 50), (middle, 50), (newest, 50)]


def test_decoding_are_those_with_a_complete_prompt() -> None:
    scheduler = Scheduler(2, 256)
    a, b = add(scheduler, "aa"), add(scheduler, "bb")
    a.num_cached, b.num_cached = 2, 1
    a.token_ids.append(1)
    assert scheduler.decoding() == [a]
    assert (a.num_pending, b.num_pending) == (1, 1)
    assert repr(a) == f"<Sequence {a.request.id[:8]} slot=0 2/3 cached>"
