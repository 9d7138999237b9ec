"""Detokenizer: compared with a naive search for stop strings, however the text is divided into tokens."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.engine.detokenizer import Detokenizer

Pieces = st.lists(st.text("ab<", max_size=4), max_size=12)
Stops = st.lists(st.text("ab<", min_size=1, max_size=5), max_size=4)


class Pieced:
    """A decoder whose token i has the text pieces[i]; the last piece comes with `finish`."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]

    def finish(self) -> str:
        return self._pieces[-1]


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(Pieced([*pieces, ""]), stops)
    shown = [detokenizer.push(i) for i in range(len(pieces))]
    return [*shown, detokenizer.finish()], detokenizer


def cut_at_stop(text: str, stops: list[str]) -> str | None:
    """Return the text before the first stop string; None if there is none."""
    for end in range(len(text) + 1):
        if done := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - len(max(done, key=len))]
    return None


@given(Pieces, Stops)
@settings(deadline=None, max_examples=500)
def test_text_ends_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    shown, detokenizer = run(pieces, stops)
    whole = "".join(pieces)
    expected = cut_at_stop(whole, stops)
    assert detokenizer.is_stopped == (expected is not None)
    assert "".join(shown) == (whole if expected is None else expected)


@given(Pieces, Stops)
@settings(deadline=None, max_examples=300)
def test_only_what_may_become_a_stop_string_is_held_back(pieces: list[str], stops: list[str]) -> None:
    shown, _ = run(pieces, stops)
    for i in range(len(pieces)):
        text = "".join(pieces[: i + 1])
        if cut_at_stop(text, stops) is None:
            held = text[len("".join(shown[: i + 1])) :]
            longest = max(
                len(stop[:n]) for stop in [*stops, "a"] for n in range(len(stop)) if text.endswith(stop[:n])
            )
            assert len(held) == longest


def test_of_stop_strings_complete_at_one_place_the_longest_counts() -> None:
    assert "".join(run(["xa", "bc"], ["c", "bc", "abc"])[0]) == "x"


def test_nothing_comes_after_a_stop_string() -> None:
    detokenizer = Detokenizer(Pieced(["a<", ">b", "c", "d"]), ["<>"])
    assert [detokenizer.push(i) for i in range(3)] == ["a", "", ""]
    assert detokenizer.is_stopped
    assert detokenizer.finish() == ""


def test_the_decoders_last_text_may_complete_a_stop_string() -> None:
    detokenizer = Detokenizer(Pieced(["a<", ">b"]), ["<>"])
    assert (detokenizer.push(0), detokenizer.finish(), detokenizer.is_stopped) == ("a", "", True)


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert run(["a", "", "b"], [])[0] == ["a", "", "b", ""]


@pytest.mark.parametrize("char", ["a", "b"])
def test_a_long_reply_and_many_long_stop_strings_stay_cheap(char: str) -> None:
    """The search takes linear time; a quadratic one would take minutes here."""
    stops = ["a" * 255 + chr(ord("c") + i) for i in range(16)]
    begin = time.process_time()
    shown, _ = run([char * 4] * 2_500, stops)
    assert "".join(shown) == char * 10_000
    assert time.process_time() - begin < 5
