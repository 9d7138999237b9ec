"""Pure sampling functions over rows: penalties, top-k, top-p, min-p and the draw.

Scores are float32 `[rows, vocab]`; parameters that differ between rows are `[rows, 1]`. The results equal
those of transformers' RepetitionPenalty, TopK, TopP and MinP processors, applied in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...config import SamplingParams

GREEDY = -1  # as a number of candidates: take the largest score
MIN_TEMPERATURE = 1e-6  # smaller values overflow float32 in the division; this one is practically greedy


class SamplingPlan(NamedTuple):
    """How the next token of one row is chosen."""

    num_candidates: int = GREEDY
    temperature: float = 1.0
    top_k: int = 1
    tail: float = 0.0  # 1 - top_p
    min_p: float = 0.0

    @classmethod
    def of(cls, params: SamplingParams, vocab_size: int) -> SamplingPlan:
        if params.is_greedy:
            return cls()
        num = num_candidates(params, vocab_size)
        top_k = min(params.top_k or num, num) or 1
        return cls(num, max(params.temperature, MIN_TEMPERATURE), top_k, 1.0 - params.top_p, params.min_p)


@dataclass(frozen=True, kw_only=True)
class SamplingTensors:
    """The plans of several rows with the same number of candidates, as tensors `[rows, 1]`."""

    temperature: Tensor
    top_k: Tensor
    tail: Tensor
    min_p: Tensor | None  # None: no row has it; 0 changes nothing


def num_candidates(params: SamplingParams, vocab_size: int) -> int:
    """Return how many of the largest scores of a row must be sorted: 0 for none, `vocab_size` for all.

    The number is a power of two above top_k, which leaves room for ties with the k-th score. It depends only
    on the row's own parameters, so that a row's tokens never depend on the other rows of the batch.
    """
    if params.top_k is not None and 0 < params.top_k < vocab_size:
        return min(max(16, 1 << params.top_k.bit_length()), vocab_size)
    return vocab_size if params.top_p < 1 else 0


def apply_repetition_penalty(scores: Tensor, seen_ids: Tensor, factor: Tensor, difference: Tensor) -> Tensor:
    """Lower the scores of `seen_ids` `[rows, n]` by `factor`, then by `difference`.

    The factor is that of CTRL (arXiv 1909.05858). An id may occur twice in `seen_ids`; factor 1 and
    difference 0 change nothing.
    """
    seen = scores.gather(1, seen_ids)
    return scores.scatter(1, seen_ids, torch.where(seen < 0, seen * factor, seen / factor) - difference)


def apply_frequency_penalty(scores: Tensor, counts: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """Apply OpenAI's penalties: score - count * frequency - (1 if count > 0 else 0) * presence.

    They are defined in its API guide, "Frequency and presence penalties". `counts` `[rows, vocab]` include
    only tokens "sampled prior to the current position", not those of the prompt.
    """
    return scores - counts * frequency - (counts > 0) * presence


def candidate_probs(
    scores: Tensor, num: int, top_k: Tensor, tail: Tensor, min_p: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return probabilities `[rows, n]` and their ids; ids None: all tokens in order.

    Dropped tokens have probability 0, and the others are not rescaled to a sum of 1. The least probable
    tokens with a sum of at most `tail` (1 - top_p) are dropped, and tokens less probable than `min_p` times
    the most probable one. Tokens tied with the k-th stay; of tokens tied at the edge of top-p, those with
    lower ids stay.
    """
    if num == 0:
        probs = scores.softmax(-1)
        if min_p is not None:
            probs = probs.masked_fill(probs < probs.amax(-1, keepdim=True) * min_p, 0.0)
        return probs, None
    values, ids = largest(scores, num)
    probs = values.masked_fill(values < values.gather(1, top_k - 1), -torch.inf).softmax(-1)
    is_dropped = probs.flip(1).cumsum(1).flip(1) <= tail
    if min_p is not None:
        is_dropped |= probs < probs[:, :1] * min_p
    is_dropped[:, 0] = False
    return probs.masked_fill(is_dropped, 0.0), ids


def sample_rows(scores: Tensor, num: int, params: SamplingTensors, uniforms: Tensor) -> Tensor:
    """Sample ids `[rows]` from `num` candidates, with one uniform number `[rows, 1]` for each row."""
    probs, ids = candidate_probs(scores / params.temperature, num, params.top_k, params.tail, params.min_p)
    index = draw(probs, uniforms)
    return index if ids is None else ids.gather(1, index[:, None]).squeeze(1)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Return the index `[rows]` at which the cumulative sum first exceeds u times the total.

    For u = k * 2**-24 below 1, u * total rounds to less than the total in float32, so a token with
    probability 0 is never drawn.
    """
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    return index.squeeze(1).clamp(max=probs.shape[1] - 1)  # the index of a row of NaN would be out of range


def largest(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the `num` largest scores of each row and their ids, in descending order, ties by id.

    `topk` alone does not define the order of ties.
    """
    if num == scores.shape[1]:
        values, ids = scores.sort(dim=-1, descending=True, stable=True)
        return values, ids
    ids = scores.topk(num, sorted=False).indices.sort().values
    values, order = scores.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
