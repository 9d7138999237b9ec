"""Sampler: logits and every row's own parameters -> token ids, one call per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import MULTIPLICATIVE
from .candidates import candidates, draw, num_candidates, penalised
from .host_buffer import HostBuffer
from .seen_tokens import SeenTokens
from .sequence import Sequence

NOT_A_TOKEN = -1  # the id of a row whose logits are not numbers
NEUTRAL = (1.0, 0.0)  # a penalty that changes nothing: times 1, minus 0
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


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Repetition penalties of all rows as columns `[rows, 1]`, neutral where a row has none."""

    sequences: list[Sequence]  # those that have one
    slots: Tensor  # of every row
    factor: Tensor
    difference: Tensor


class Sampler:
    """Plans once per batch composition (groups, parameter tensors), then only computes."""

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._max_len = max_len
        self._device = device
        self._uniforms = HostBuffer(num_slots, torch.float32, device)
        self._seen: SeenTokens | None = None
        self._rows: list[Sequence | None] = []
        self._groups: list[Group] = []
        self._penalty: Penalty | None = None

    def sample(self, logits: Tensor, rows: list[Sequence | None]) -> Tensor:
        """Ids `[rows]` for logits `[rows, vocab]`; None is a padding row, its id means nothing."""
        if rows != self._rows:
            self._plan(rows, logits.shape[1])
        scores = self._penalised(logits.float())
        top, ids = scores.max(dim=-1)  # the greedy choice; NaN wins every comparison
        for group, uniforms in zip(self._groups, self._draws(), strict=True):
            ids.index_copy_(0, group.rows, _drawn(group, scores, uniforms))
        return ids.masked_fill(~top.isfinite(), NOT_A_TOKEN)

    def _penalised(self, scores: Tensor) -> Tensor:
        rule = self._penalty
        if rule is None:
            return scores
        if self._seen is None:
            self._seen = SeenTokens(num_slots=self._num_slots, max_len=self._max_len, device=self._device)
        seen_ids = self._seen.ids(rule.sequences, rule.slots, scores.shape[1])
        return penalised(scores, seen_ids, rule.factor, rule.difference)

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
        self._penalty = self._penalty_of(rows)
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
        )

    def _penalty_of(self, rows: list[Sequence | None]) -> Penalty | None:
        sequences = [s for s in rows if s is not None and _strength(s) != NEUTRAL]
        if not sequences:
            return None
        strengths = [NEUTRAL if s is None else _strength(s) for s in rows]
        return Penalty(
            sequences=sequences,
            slots=self._tensor([row if s is None else s.slot for row, s in enumerate(rows)]),
            factor=self._column([factor for factor, _ in strengths]),
            difference=self._column([difference for _, difference in strengths]),
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def _drawn(group: Group, scores: Tensor, uniforms: Tensor) -> Tensor:
    own = scores if len(group.sequences) == len(scores) else scores[group.rows]
    probs, ids = candidates(own / group.temperature, group.num_candidates, group.top_k, group.tail)
    index = draw(probs, uniforms)
    return index if ids is None else ids.gather(1, index[:, None]).squeeze(1)


def _strength(sequence: Sequence) -> tuple[float, float]:
    """Factor and difference of a sequence's repetition penalty."""
    params = sequence.params
    if params.repetition_penalty is None:
        return NEUTRAL
    if params.repetition_penalty_method == MULTIPLICATIVE:
        return params.repetition_penalty, 0.0
    return 1.0, params.repetition_penalty
