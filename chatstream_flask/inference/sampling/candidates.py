"""From scores to one token: penalties, top-k, top-p, min-p and the draw, as pure functions over rows.

Scores are float32 `[rows, vocab]`; whatever differs between rows comes as a column `[rows, 1]`.
Same results as transformers' RepetitionPenalty, TopK, TopP and MinP processors in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...config import SamplingParams

GREEDY = -1  # in place of a number of candidates: the largest score
MIN_TEMPERATURE = 1e-6  # below it float32 cannot divide; it is greedy in all but name


class SamplingPlan(NamedTuple):
    """How one row's token is chosen from its scores."""

    num_candidates: int = GREEDY
    temperature: float = 1.0
    top_k: int = 1
    tail: float = 0.0
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
    """The choices of several rows that have the same number of candidates, `[rows, 1]`."""

    temperature: Tensor
    top_k: Tensor
    tail: Tensor
    min_p: Tensor | None  # if any row has it; 0 changes nothing


def num_candidates(params: SamplingParams, vocab_size: int) -> int:
    """How many of the largest scores a row needs sorted: 0 none, `vocab_size` all.

    A power of two above top_k, so that ties with the k-th score find room. Depends on the row's own
    parameters only: a row's path through the code, and so its tokens, never depend on its neighbours.
    """
    if params.top_k is not None and 0 < params.top_k < vocab_size:
        return min(max(16, 1 << params.top_k.bit_length()), vocab_size)
    return vocab_size if params.top_p < 1 else 0


def penalised(scores: Tensor, seen_ids: Tensor, factor: Tensor, difference: Tensor) -> Tensor:
    """Scores of `seen_ids` `[rows, n]` made smaller: by `factor`, then by `difference`.

    Factor as in CTRL (arXiv 1909.05858). An id may be there twice; factor 1 and difference 0 change nothing.
    """
    seen = scores.gather(1, seen_ids)
    return scores.scatter(1, seen_ids, torch.where(seen < 0, seen * factor, seen / factor) - difference)


def count_penalised(scores: Tensor, counts: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """OpenAI's: score - count * frequency_penalty - (1 if count > 0 else 0) * presence_penalty.

    From its API guide, "Frequency and presence penalties"; counts `[rows, vocab]` are those of the tokens
    "sampled prior to the current position", so not the prompt's.
    """
    return scores - counts * frequency - (counts > 0) * presence


def candidates(
    scores: Tensor, num: int, top_k: Tensor, tail: Tensor, min_p: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Probabilities `[rows, n]`, not summing to 1 if any are dropped, and their ids (None: all, in order).

    `tail` is 1 - top_p: the least probable tokens that together have no more than that are dropped, and
    so are those less probable than `min_p` times the likeliest. Tokens tied with the k-th stay; of tokens
    tied at the edge of top-p the lower ids stay.
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


def drawn(scores: Tensor, num: int, columns: SamplingTensors, uniforms: Tensor) -> Tensor:
    """Ids `[rows]`, by one uniform number `[rows, 1]` each."""
    probs, ids = candidates(scores / columns.temperature, num, columns.top_k, columns.tail, columns.min_p)
    index = draw(probs, uniforms)
    return index if ids is None else ids.gather(1, index[:, None]).squeeze(1)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Index `[rows]` where the cumulative sum first exceeds u times the total.

    For u = k * 2**-24 below 1, u * total rounds to less than total in float32, so a token with
    probability 0 is never drawn.
    """
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    return index.squeeze(1).clamp(max=probs.shape[1] - 1)  # a row of NaN would be out of range


def largest(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` largest of each row, falling, equal ones by id: `topk` alone leaves their order open."""
    if num == scores.shape[1]:
        values, ids = scores.sort(dim=-1, descending=True, stable=True)
        return values, ids
    ids = scores.topk(num, sorted=False).indices.sort().values
    values, order = scores.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
