"""PromptLookup: proposes what followed an earlier occurrence of the last n-gram, and tracks its accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_flask.engine.prompt_lookup import INITIAL_RATE, MAX_INDEXED, NGRAM_LENGTHS, PromptLookup

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def looked_up(token_ids: list[int], num: int) -> list[int]:
    """Propose by searching the whole sequence."""
    for length in NGRAM_LENGTHS:
        last = token_ids[-length:]
        for end in range(len(token_ids) - 1, length - 1, -1):
            if token_ids[end - length : end] == last:
                found = list(token_ids)
                for i in range(num):
                    found.append(found[end + i])
                return found[len(token_ids) :]
    return []


@given(TOKENS, st.lists(st.integers(1, 5), max_size=8), st.integers(0, 6))
def test_it_finds_what_a_search_finds(token_ids: list[int], gaps: list[int], num: int) -> None:
    """For any number of tokens since the last call."""
    lookup, stop = PromptLookup(), 0
    for gap in [*gaps, len(token_ids)]:
        stop = min(stop + gap, len(token_ids))
        assert lookup.propose(token_ids[:stop], num) == looked_up(token_ids[:stop], num)


def test_a_loop_is_followed_beyond_its_end() -> None:
    assert PromptLookup().propose([7, 8, 9, 1, 2, 1, 2, 1], 5) == [2, 1, 2, 1, 2]


def test_the_longest_and_then_the_latest_counts() -> None:
    assert PromptLookup().propose([1, 2, 3, 4, 1, 2, 3, 5, 9, 2, 3, 6, 1, 2, 3], 2) == [5, 9]


def test_a_long_prompt_is_indexed_in_parts() -> None:
    lookup = PromptLookup()
    token_ids = [*range(3 * MAX_INDEXED), 2 * MAX_INDEXED, 2 * MAX_INDEXED + 1]
    looks = [lookup.propose(token_ids, 1) for _ in range(4)]
    assert looks == [[], [], [2 * MAX_INDEXED + 2], [2 * MAX_INDEXED + 2]]


def test_shares_follow_what_was_right() -> None:
    lookup = PromptLookup()
    assert lookup.num_expected(2) == INITIAL_RATE + INITIAL_RATE**2
    proposed = lookup.propose([1, 2, 3, 4, 5, 1, 2, 3], 2)
    for _ in range(30):
        lookup.learn(proposed, [4, 5, 6])
    assert lookup.num_expected(4) > 3.9
    lookup.learn(proposed, [4, 9])
    assert lookup.num_expected(1) == pytest.approx(0.8, abs=0.01)


def test_a_step_without_drafts_teaches_too() -> None:
    lookup = PromptLookup()
    proposed = lookup.propose([1, 2, 3, 4, 5, 1, 2, 3], 4)
    for _ in range(30):
        lookup.learn(proposed, [9])
    assert lookup.num_expected(4) < 0.01
    lookup.learn(proposed, [4])
    assert lookup.num_expected(1) > 0.2


def test_short_and_long_n_grams_have_shares_of_their_own() -> None:
    lookup, token_ids = PromptLookup(), [1, 2, 3, 4, 9, 2, 3]
    for _ in range(30):
        lookup.learn(lookup.propose(token_ids, 1), [5])
    assert lookup.num_expected(1) < 0.01
    assert lookup.propose([*token_ids, 4, 9], 1) == [2]
    assert lookup.num_expected(1) == INITIAL_RATE
