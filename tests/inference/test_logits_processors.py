"""Grammar masks, logit bias and penalties: their formulas, their order, and that other rows do not change."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_sequence, random_logits
from torch import Tensor
from transformers import (
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.inference.sampling.logits_processors import LogitsProcessors
from chatstream_flask.inference.sampling.sampler import NOT_A_TOKEN, Sampler

CPU = torch.device("cpu")
VOCAB = 300


class Allow:
    """A grammar that always allows the same tokens."""

    def __init__(self, ids: Iterable[int], vocab_size: int = VOCAB) -> None:
        bits = sum(1 << i for i in ids)
        self.num_bytes = -(-vocab_size // 32) * 4
        self._mask = torch.frombuffer(bytearray(bits.to_bytes(self.num_bytes, "little")), dtype=torch.uint8)

    def accept(self, token_id: int) -> bool:
        return False

    def write_mask(self, address: int, num_bytes: int) -> bool:
        ctypes.memmove(address, self._mask.data_ptr(), num_bytes)
        return True


class Broken(Allow):
    def write_mask(self, address: int, num_bytes: int) -> bool:
        super().write_mask(address, num_bytes)
        return False


def sequence(prompt_ids: list[int], new_ids: list[int], slot: int = 0, **params: Any) -> Sequence:
    sequence = make_sequence(prompt_ids, SamplingParams(temperature=0, **params), slot=slot)
    sequence.token_ids += new_ids
    return sequence


def edited(logits: Tensor, rows: list[Sequence | None]) -> Tensor:
    rules = LogitsProcessors(num_slots=len(rows), max_len=50, device=CPU)
    rules.plan(rows, logits.shape[1])
    return rules.apply(logits)


@settings(max_examples=50, deadline=None)
@given(
    new_ids=st.lists(st.integers(0, 9), max_size=49),
    frequency=st.floats(-2, 2),
    presence=st.floats(-2, 2),
)
def test_penalties_follow_openais_formula_over_generated_tokens(
    new_ids: list[int], frequency: float, presence: float
) -> None:
    """Check mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, without the prompt."""
    row = sequence([3, 3, 250], new_ids, frequency_penalty=frequency, presence_penalty=presence)
    logits = random_logits(1, VOCAB)
    expected = logits.double().clone()
    for j in range(VOCAB):
        count = new_ids.count(j)
        expected[0, j] -= count * frequency + float(count > 0) * presence
    torch.testing.assert_close(edited(logits, [row]).double(), expected, atol=1e-5, rtol=1e-5)


def test_counts_belong_to_the_sequence_not_to_the_slot() -> None:
    logits = torch.zeros(2, VOCAB)
    sampler = Sampler(num_slots=2, max_len=50, device=CPU)
    logits[:, [10, 20, 30]] = torch.tensor([2.0, 1.5, 1.0])
    first, second = (sequence([10], [], slot, presence_penalty=0.7) for slot in range(2))
    taken = []
    for _ in range(4):
        ids = sampler.sample(logits, [first, second]).tolist()
        first.token_ids.append(ids[0])
        second.token_ids.append(ids[1])
        taken.append(ids[0])
        assert ids[0] == ids[1]
    assert taken == [10, 20, 10, 10]
    second.slot = 0
    assert sampler.sample(logits[:1], [second]).tolist() == [10]
    new = sequence([10], [], presence_penalty=0.7)
    assert [sampler.sample(logits[:1], [new]).item() for _ in range(2)] == [10, 10]


@pytest.mark.parametrize("frequency", [-1.5, 2.0])
def test_counts_of_a_long_reply_that_joins_late(frequency: float) -> None:
    """There are more new tokens at once than the send buffer holds."""
    rows: list[Sequence | None] = [
        sequence([1], [5 + slot] * 40, slot, frequency_penalty=frequency) for slot in range(3)
    ]
    scores = edited(torch.zeros(3, VOCAB), rows)
    assert [scores[slot, 5 + slot].item() for slot in range(3)] == [-40 * frequency] * 3
    assert scores.count_nonzero() == 3


def test_bias_equals_transformers_sequence_bias() -> None:
    bias = {7: -100.0, 8: 3.5, 299: 100.0}
    logits = random_logits(1, VOCAB)
    theirs: Any = SequenceBiasLogitsProcessor([[[token_id], value] for token_id, value in bias.items()])
    ids = torch.tensor([[1, 2]])
    ours = edited(logits, [sequence([1, 2], [], logit_bias=(*bias.items(), (VOCAB, 1.0)))])
    assert torch.equal(ours, theirs(ids, logits.clone()))


def test_order_equals_that_of_transformers() -> None:
    """Apply bias, repetition penalty, then the count penalties, which transformers does not have."""
    logits, prompt = random_logits(1, VOCAB), [7, 8, 9]
    row = sequence(
        prompt,
        [8, 8],
        logit_bias=((8, 5.0),),
        repetition_penalty=1.5,
        frequency_penalty=0.5,
        presence_penalty=1,
    )
    ids: Any = torch.tensor([[7, 8, 9, 8, 8]])
    bias: Any = SequenceBiasLogitsProcessor([[[8], 5.0]])
    expected = RepetitionPenaltyLogitsProcessor(1.5)(ids, bias(ids, logits.clone()))
    expected[0, 8] -= 2 * 0.5 + 1
    torch.testing.assert_close(edited(logits, [row]), expected)


def test_a_grammar_overrides_any_bias() -> None:
    row = sequence([1], [], logit_bias=((5, 100.0), (6, -100.0)), frequency_penalty=2)
    row.grammar_matcher = Allow({6, 7})
    scores = edited(random_logits(1, VOCAB), [row])
    assert scores.isfinite().nonzero()[:, 1].tolist() == [6, 7]


def test_scores_beyond_the_tokenizer_are_never_allowed() -> None:
    rows: list[Sequence | None] = [sequence([1], []), sequence([1], [], 1)]
    for row, matcher in zip(rows, [Allow(range(64), 64), Allow({0, 63}, 64)], strict=True):
        assert row is not None
        row.grammar_matcher = matcher
    scores = edited(random_logits(2, VOCAB), rows)
    assert scores.isfinite().sum(1).tolist() == [64, 2]
    assert edited(random_logits(2, 40), rows).isfinite().sum(1).tolist() == [40, 1]


def test_rows_that_ask_for_nothing_are_neither_changed_nor_copied() -> None:
    logits = random_logits(4, VOCAB)
    before = logits.clone()
    plain: list[Sequence | None] = [sequence([1], []), None, sequence([1], [], 2), sequence([1], [], 3)]
    assert edited(logits, plain) is logits
    mixed = list(plain)
    asking = sequence([1], [4, 4], 2, frequency_penalty=1, logit_bias=((9, 1),), repetition_penalty=2)
    asking.grammar_matcher = Allow({4})
    mixed[2] = asking
    scores = edited(logits, mixed)
    assert torch.equal(logits, before)
    assert torch.equal(scores[[0, 1, 3]], logits[[0, 1, 3]]) and not torch.equal(scores[2], logits[2])


@pytest.mark.parametrize("temperature", [0, 2])
def test_a_grammar_that_fails_ends_only_its_own_row(temperature: float) -> None:
    rows: list[Sequence | None] = []
    for slot, matcher in enumerate([Allow({5}), Broken({5}), None]):
        row = make_sequence([1], SamplingParams(temperature=temperature, seed=slot), slot=slot)
        row.grammar_matcher = matcher
        rows.append(row)
    ids = Sampler(num_slots=3, max_len=50, device=CPU).sample(random_logits(3, VOCAB), rows).tolist()
    assert ids[:2] == [5, NOT_A_TOKEN] and ids[2] >= 0


def test_a_row_of_nan_is_reported_even_if_its_grammar_allows_nothing() -> None:
    row = sequence([1], [])
    row.grammar_matcher = Allow({5})
    for bad in (float("nan"), float("inf")):
        logits = random_logits(1, VOCAB)
        logits[0, 17] = bad
        assert Sampler(num_slots=1, max_len=50, device=CPU).sample(logits, [row]).tolist() == [NOT_A_TOKEN]


def test_only_allowed_tokens_can_be_sampled() -> None:
    logits = random_logits(2, VOCAB)
    scores = edited(logits, [sequence([1], [], allowed_token_ids=(3, 299)), sequence([1], [], slot=1)])
    assert scores[0].isfinite().nonzero().flatten().tolist() == [3, 299]
    assert torch.equal(scores[0, [3, 299]], logits[0, [3, 299]]) and torch.equal(scores[1], logits[1])


def test_what_would_complete_a_bad_word_equals_transformers() -> None:
    words = ((7,), (8, 9), (8, 9, 10), (1, 8))  # the last begins in the prompt, which is nobody's fault
    for new_ids in ([], [8], [8, 9], [9, 8], [8, 8, 9]):
        logits = random_logits(1, VOCAB)
        theirs: Any = NoBadWordsLogitsProcessor([list(word) for word in words])
        expected = theirs(torch.tensor([[0, *new_ids]]), logits.clone())
        assert torch.equal(edited(logits, [sequence([1], new_ids, bad_words_ids=words)]), expected)


def test_tokens_that_end_the_reply_wait_for_its_minimum() -> None:
    row = sequence([1], [], min_new_tokens=2)
    row.ending_ids = {5, VOCAB + 1}
    logits = random_logits(1, VOCAB)
    sampler = LogitsProcessors(num_slots=1, max_len=50, device=CPU)
    sampler.plan([row], VOCAB)
    for num_generated, is_banned in ((0, True), (1, True), (2, False)):
        row.request.num_generated = num_generated
        assert (sampler.apply(logits)[0, 5].item() == -torch.inf) == is_banned
