"""Replacement in streamed text, compared with a naive one in the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.errors import ConfigError
from chatstream_flask.prompts.replacer import Replacer

Rules = st.lists(st.tuples(st.text("<NL", min_size=1, max_size=4), st.text("<N\n", max_size=2)), max_size=4)


def streamed(pieces: list[str], rules: list[tuple[str, str]]) -> str:
    replacer = Replacer(rules)
    return "".join([replacer.push(piece) for piece in pieces]) + replacer.finish()


def replaced(text: str, rules: list[tuple[str, str]]) -> str:
    """Replace the leftmost match, and of several there the longest."""
    done, i = "", 0
    while i < len(text):
        old = max((old for old, _ in rules if text.startswith(old, i)), key=len, default="")
        done += dict(rules)[old] if old else text[i]
        i += len(old) or 1
    return done


@given(st.lists(st.text("<NL x", max_size=4), max_size=12), Rules)
@settings(deadline=None, max_examples=500)
def test_pieces_change_nothing(pieces: list[str], rules: list[tuple[str, str]]) -> None:
    assert streamed(pieces, rules) == replaced("".join(pieces), rules)


@given(st.lists(st.text("<NLx", max_size=4), max_size=12))
@settings(deadline=None)
def test_only_what_may_become_a_match_is_held_back(pieces: list[str]) -> None:
    replacer, text, shown = Replacer([("<NL", "\n")]), "", ""
    for piece in pieces:
        text += piece
        shown += replacer.push(piece)
        open_len = next(n for n in (2, 1, 0) if text.endswith("<NL"[:n]))
        assert shown == text[: len(text) - open_len].replace("<NL", "\n")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["abc<N"], "abc<N"),  # an unfinished start is not lost
        (["<", "<", "N", "L", ">"], "<\n"),  # a false start that overlaps the match
        (["a", "a", "a", "b"], "aX"),
    ],
)
def test_what_the_ancestor_lost(pieces: list[str], expected: str) -> None:
    assert streamed(pieces, [("<NL>", "\n"), ("aab", "X")]) == expected


def test_an_empty_string_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="empty"):
        Replacer([("", "x")])
