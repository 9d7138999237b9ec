"""Sampler: logits and every row's own parameters -> token ids, one call per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .candidates import candidates, draw, num_candidates
from .host_buffer import HostBuffer
from .score_rules import ScoreRules
from .sequence import Sequence

NOT_A_TOKEN = -1  # the id of a row whose logits are not numbers, or whose grammar allows none
MIN_TEMPERATURE = 1e-6  # below it float32 cannot divide; it is greedy in all but name


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that take the same path; their parameters as columns `[rows, 1]`."""

    sequences: list[Sequence]
    rows: Tensor
    num_candidates: int
    temperature: Tensor
    top_k: Tensor
    tail: Tensor  # 1 - top_p
    min_p: Tensor | None  # if any row has it; 0 changes nothing


class Sampler:
    """Plans once per batch composition (groups, parameter tensors), then only computes."""

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._device = device
        self._uniforms = HostBuffer(num_slots, torch.float32, device)
        self._rules = ScoreRules(num_slots=num_slots, max_len=max_len, device=device)
        self._rows: list[Sequence | None] = []
        self._groups: list[Group] = []

    def sample(self, logits: Tensor, rows: list[Sequence | None]) -> Tensor:
        """Ids `[rows]` for logits `[rows, vocab]`, which stay as they are.

        None is a padding row, its id means nothing.
        """
        if rows != self._rows:
            self._plan(rows, logits.shape[1])
        scores = self._rules.apply(logits)
        top, ids = scores.max(dim=-1)  # the greedy choice; NaN wins every comparison
        for group, uniforms in zip(self._groups, self._draws(), strict=True):
            ids.index_copy_(0, group.rows, _drawn(group, scores, uniforms))
        return _marked(ids, top)

    def _draws(self) -> list[Tensor]:
        """One uniform number in [0, 1) per sampled row, exact in float32; a column for each group."""
        values = [s.random.getrandbits(24) * 2.0**-24 for group in self._groups for s in group.sequences]
        sizes = [len(group.sequences) for group in self._groups]
        return list(torch.split(self._uniforms.send(values)[:, None], sizes)) if values else []

    def _plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        sampled: dict[int, list[int]] = {}
        for row, sequence in enumerate(rows):
            if sequence is not None and not sequence.params.is_greedy:
                sampled.setdefault(num_candidates(sequence.params, vocab_size), []).append(row)
        self._groups = [self._group(num, rows, indices) for num, indices in sampled.items()]
        self._rules.plan(rows, vocab_size)
        self._rows = list(rows)

    def _group(self, num: int, rows: list[Sequence | None], indices: list[int]) -> Group:
        sequences = [sequence for i in indices if (sequence := rows[i]) is not None]
        params = [sequence.params for sequence in sequences]
        return Group(
            sequences=sequences,
            rows=self._tensor(indices),
            num_candidates=num,
            temperature=self._column([max(p.temperature, MIN_TEMPERATURE) for p in params]),
            top_k=self._tensor([min(p.top_k or num, num) or 1 for p in params])[:, None],
            tail=self._column([1.0 - p.top_p for p in params]),
            min_p=self._column([p.min_p for p in params]) if any(p.min_p for p in params) else None,
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def greedy(logits: Tensor) -> Tensor:
    """The likeliest ids `[..]` for logits `[.., vocab]`, NOT_A_TOKEN where these are not numbers."""
    top, ids = logits.max(dim=-1)
    return _marked(ids, top)


def _marked(ids: Tensor, top: Tensor) -> Tensor:
    return ids.masked_fill(~top.isfinite(), NOT_A_TOKEN)


def _drawn(group: Group, scores: Tensor, uniforms: Tensor) -> Tensor:
    own = scores if len(group.sequences) == len(scores) else scores[group.rows]
    probs, ids = candidates(
        own / group.temperature, group.num_candidates, group.top_k, group.tail, group.min_p
    )
    index = draw(probs, uniforms)
    return index if ids is None else ids.gather(1, index[:, None]).squeeze(1)
