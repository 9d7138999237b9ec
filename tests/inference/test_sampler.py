"""The sampler agrees with transformers' processors, and rows do not depend on each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_sequence, random_logits
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.inference.sampling.candidates import (
    apply_repetition_penalty,
    candidate_probs,
    draw,
    num_candidates,
)
from chatstream_flask.inference.sampling.sampler import Sampler

CPU = torch.device("cpu")
VOCAB = 300


def our_probs(scores: Tensor, params: SamplingParams) -> Tensor:
    """Return the probabilities `[rows, vocab]` that the sampler draws from."""
    num = num_candidates(params, scores.shape[1])
    top_k = torch.full((len(scores), 1), min(params.top_k or num, num) or 1)
    tail = torch.full((len(scores), 1), 1.0 - params.top_p)
    min_p = torch.full((len(scores), 1), params.min_p)
    probs, ids = candidate_probs(scores / params.temperature, num, top_k, tail, min_p)
    probs = probs / probs.sum(-1, keepdim=True)
    return probs if ids is None else torch.zeros_like(scores).scatter(1, ids, probs)


def their_probs(scores: Tensor, params: SamplingParams) -> Tensor:
    no_ids: Any = torch.zeros(len(scores), 1, dtype=torch.long)
    scores = scores / params.temperature
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(no_ids, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(no_ids, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(no_ids, scores)
    return scores.softmax(-1)


def sample(logits: Tensor, rows: list[Sequence | None]) -> list[int]:
    ids: list[int] = Sampler(num_slots=len(rows), max_len=200, device=CPU).sample(logits, rows).tolist()
    return ids


@settings(max_examples=80, deadline=None)
@given(
    top_k=st.one_of(st.none(), st.integers(0, VOCAB + 50)),
    top_p=st.one_of(st.just(1.0), st.floats(1e-6, 1.0, exclude_min=True)),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
    temperature=st.floats(0.05, 2),
    seed=st.integers(0, 1000),
)
def test_same_distribution_as_transformers(
    top_k: int | None, top_p: float, min_p: float, temperature: float, seed: int
) -> None:
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    scores = random_logits(4, VOCAB, seed=seed)
    ours, theirs = our_probs(scores, params), their_probs(scores, params)
    edge = (ours > 0) != (theirs > 0)  # a token right at the edge of top_p or min_p may fall on either side
    assert edge.sum() <= 1 and (ours + theirs)[edge].sum() < 0.5
    if not edge.any():
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("top_k", [2, 20])
def test_tokens_tied_with_the_kth_stay(top_k: int) -> None:
    scores = torch.tensor([[1.0] * 40 + [3.0, 3.0, 3.0] + [5.0] * (top_k - 1)])
    params = SamplingParams(top_k=top_k)
    torch.testing.assert_close(our_probs(scores, params), their_probs(scores, params))
    assert our_probs(scores, params)[0].nonzero().flatten().tolist() == list(range(40, 42 + top_k))


def test_tokens_tied_at_the_edge_of_top_p_are_kept_by_id() -> None:
    scores = torch.zeros(1, 8)
    assert our_probs(scores, SamplingParams(top_k=None, top_p=0.5))[0].tolist() == [0.25] * 4 + [0.0] * 4


@pytest.mark.parametrize("top_k", [None, 50])
def test_a_tiny_top_p_leaves_the_best_token(top_k: int | None) -> None:
    scores = random_logits(3, VOCAB)
    probs = our_probs(scores, SamplingParams(top_k=top_k, top_p=1e-9))
    assert torch.equal(probs.argmax(-1), scores.argmax(-1)) and torch.equal(probs.amax(-1), torch.ones(3))


def test_draw_inverts_the_cumulative_distribution() -> None:
    probs = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]])
    expected = {0.0: 1, 0.2499: 1, 0.25: 2, 0.7499: 2, 0.75: 4, 1 - 2**-24: 4}
    for u, index in expected.items():
        assert draw(probs, torch.tensor([[u]])).tolist() == [index], u
        assert draw(probs * 0.37, torch.tensor([[u]])).tolist() == [index], "sums need not be 1"


@given(st.integers(1, 2**20), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_draw_never_takes_a_token_with_probability_0(scale: int, seed: int) -> None:
    probs = torch.rand(4, 50, generator=torch.Generator().manual_seed(seed)) / scale
    probs[:, ::2] = 0
    probs[:, -8:] = 0
    for u in (0.0, 0.5, 1 - 2**-24):
        index = draw(probs, torch.full((4, 1), u))
        assert bool((probs.gather(1, index[:, None]) > 0).all())


def test_the_multiplicative_penalty_equals_that_of_transformers() -> None:
    logits, seen_ids = random_logits(1, VOCAB), torch.tensor([[5, 9, 9, 200]])
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(seen_ids, logits.clone())
    ours = apply_repetition_penalty(logits, seen_ids, torch.tensor([[1.7]]), torch.tensor([[0.0]]))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("method", "penalty"), [("multiplicative", 3.0), ("subtractive", 4.0)])
def test_the_penalty_follows_prompt_and_reply(method: str, penalty: float) -> None:
    """With constant logits and a strong penalty, greedy decoding takes the next best token each time."""
    logits = torch.full((2, VOCAB), -9.0)
    logits[:, [10, 20, 30, 40]] = torch.tensor([5.0, 4.0, 3.0, 2.0])
    params = SamplingParams(temperature=0, repetition_penalty=penalty, repetition_penalty_method=method)
    rows: list[Sequence | None] = [make_sequence([10, 10], params, slot=0), make_sequence([1], slot=1)]
    sampler = Sampler(num_slots=2, max_len=200, device=CPU)
    taken = []
    for _ in range(3):
        ids = sampler.sample(logits, rows).tolist()
        for sequence, token_id in zip(rows, ids, strict=True):
            assert sequence is not None
            sequence.token_ids.append(token_id)
        taken.append(ids)
    assert taken == [[20, 10], [30, 10], [40, 10]]


def test_seen_tokens_belong_to_the_sequence_not_to_the_slot() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [10, 20]] = torch.tensor([5.0, 4.0])
    params = SamplingParams(temperature=0, repetition_penalty=2.0)
    sampler = Sampler(num_slots=2, max_len=200, device=CPU)
    assert sampler.sample(logits, [make_sequence([10], params)]).tolist() == [20]
    assert sampler.sample(logits, [make_sequence([3, VOCAB + 7], params)]).tolist() == [10]  # no logit for it
    moved = make_sequence([7, 10], params, slot=1)
    assert sampler.sample(logits.repeat(2, 1), [None, moved]).tolist()[1] == 20
    moved.slot = 0
    assert sampler.sample(logits, [moved]).tolist() == [20]
    moved.slot = 1  # in the same row
    moved.token_ids.append(20)
    assert sampler.sample(logits, [moved]).tolist() == [10]


def test_the_penalty_reaches_a_long_history() -> None:
    params = SamplingParams(temperature=0, repetition_penalty=5.0)
    long, short = make_sequence(list(range(199)), params, slot=0), make_sequence([1], params, slot=1)
    logits = torch.arange(200, 0, -1.0).repeat(2, 1)
    assert sample(logits, [long, short]) == [199 if logits[0, 199] > logits[0, 0] / 5 else 0, 0]


MIXED = [
    SamplingParams(temperature=0),
    SamplingParams(seed=1, top_k=40),
    SamplingParams(seed=2, top_k=3, top_p=0.5),
    SamplingParams(seed=3, top_k=None),
    SamplingParams(seed=4, top_k=None, top_p=0.9, temperature=0.3),
    SamplingParams(seed=5, top_k=64, repetition_penalty=1.5),
    SamplingParams(seed=6, top_k=0, repetition_penalty=0.5, repetition_penalty_method="subtractive"),
    SamplingParams(seed=7, top_k=None, min_p=0.2, frequency_penalty=1.5),
    SamplingParams(seed=8, min_p=0.6, presence_penalty=-2, logit_bias=((5, 4.0), (299, 3.0))),
    SamplingParams(temperature=0, frequency_penalty=-2, logit_bias=((7, -100.0),), repetition_penalty=3),
]


def said(params: SamplingParams, slot: int = 0) -> Sequence:
    sequence = make_sequence([1, 2], params, slot=slot)
    sequence.token_ids += [7, 5, 5]
    return sequence


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = random_logits(len(MIXED), VOCAB).round()  # many ties
    for _ in range(3):
        alone = [sample(logits[i : i + 1], [said(p)])[0] for i, p in enumerate(MIXED)]
        rows: list[Sequence | None] = [said(p, i) for i, p in enumerate(MIXED)]
        assert sample(logits, rows) == alone
        order = [3, 9, 6, 1, 0, 8, 5, 2, 7, 4]
        rows = [said(MIXED[j], i) for i, j in enumerate(order)]
        assert sample(logits[order], rows) == [alone[j] for j in order]


def test_a_seed_gives_the_same_tokens_again() -> None:
    params, logits = SamplingParams(seed=11, top_k=None), random_logits(1, VOCAB) / 3
    runs = []
    for _ in range(2):
        sequence, sampler = make_sequence([1], params), Sampler(num_slots=1, max_len=200, device=CPU)
        runs.append([sampler.sample(logits, [sequence]).item() for _ in range(20)])
    assert runs[0] == runs[1] and len(set(runs[0])) > 5


@pytest.mark.parametrize("params", MIXED)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_of_nan_is_reported(params: SamplingParams, bad: float) -> None:
    logits = random_logits(3, VOCAB)
    logits[1, 17] = bad
    rows: list[Sequence | None] = [make_sequence([1], params, slot=i) for i in range(3)]
    ids = sample(logits, rows)
    assert ids[1] == -1 and min(ids[0], ids[2]) >= 0


def test_a_row_without_any_finite_logit_is_reported() -> None:
    assert sample(torch.full((1, VOCAB), -torch.inf), [make_sequence([1], MIXED[1])]) == [-1]


def test_the_smallest_temperature_is_greedy() -> None:
    logits = random_logits(1, VOCAB)
    sequence = make_sequence([1], SamplingParams(temperature=1e-300, top_k=None))
    assert sample(logits, [sequence]) == logits.argmax(-1).tolist()
