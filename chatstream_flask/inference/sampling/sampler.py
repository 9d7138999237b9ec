"""Sampler: token ids from logits, with each row's own parameters, in one call per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer
from .candidates import SamplingPlan, SamplingTensors, sample_rows
from .logits_processors import LogitsProcessors

NOT_A_TOKEN = -1  # the id of a row whose logits are not finite, or whose grammar allows no token


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are sampled with the same number of candidates."""

    sequences: list[Sequence]
    rows: Tensor
    num_candidates: int
    params: SamplingTensors


class Sampler:
    """Plans once per batch composition (groups and parameter tensors), then only computes."""

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._device = device
        self._uniforms = HostBuffer(num_slots, torch.float32, device)
        self._processors = LogitsProcessors(num_slots=num_slots, max_len=max_len, device=device)
        self._planned: list[tuple[Sequence, int] | None] = []  # each row's sequence and slot
        self._groups: list[Group] = []

    def sample(self, logits: Tensor, rows: list[Sequence | None]) -> Tensor:
        """Sample ids `[rows]` from logits `[rows, vocab]`, which are not changed.

        :param rows: None is a padding row; its id is undefined
        """
        placed = [None if sequence is None else (sequence, sequence.slot) for sequence in rows]
        if placed != self._planned:
            self._plan(rows, logits.shape[1])
            self._planned = placed
        scores = self._processors.apply(logits)
        top, ids = scores.max(dim=-1)  # the greedy choice; NaN wins every comparison
        for group, uniforms in zip(self._groups, self._uniform_numbers(), strict=True):
            own = scores if len(group.sequences) == len(scores) else scores[group.rows]
            ids.index_copy_(0, group.rows, sample_rows(own, group.num_candidates, group.params, uniforms))
        return mark_invalid(ids, top)

    def _uniform_numbers(self) -> list[Tensor]:
        """Draw one uniform number for each sampled row; return them as `[rows, 1]` for each group."""
        values = [uniform(s) for group in self._groups for s in group.sequences]
        sizes = [len(group.sequences) for group in self._groups]
        return list(torch.split(self._uniforms.send(values)[:, None], sizes)) if values else []

    def _plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        sampled: dict[int, list[tuple[int, Sequence, SamplingPlan]]] = {}
        for row, sequence in enumerate(rows):
            if sequence is not None and not sequence.params.is_greedy:
                plan = SamplingPlan.of(sequence.params, vocab_size)
                sampled.setdefault(plan.num_candidates, []).append((row, sequence, plan))
        self._groups = [self._group(num, members) for num, members in sampled.items()]
        self._processors.plan(rows, vocab_size)

    def _group(self, num: int, members: list[tuple[int, Sequence, SamplingPlan]]) -> Group:
        rows, sequences, plans = zip(*members, strict=True)
        params = SamplingTensors(
            temperature=self._column([plan.temperature for plan in plans]),
            top_k=self._tensor([plan.top_k for plan in plans])[:, None],
            tail=self._column([plan.tail for plan in plans]),
            min_p=self._column([plan.min_p for plan in plans]) if any(plan.min_p for plan in plans) else None,
        )
        return Group(
            sequences=list(sequences), rows=self._tensor(list(rows)), num_candidates=num, params=params
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def greedy(logits: Tensor) -> Tensor:
    """Return the most probable ids `[..]` of logits `[.., vocab]`, NOT_A_TOKEN where they are not finite."""
    top, ids = logits.max(dim=-1)
    return mark_invalid(ids, top)


def mark_invalid(ids: Tensor, top: Tensor) -> Tensor:
    """Replace ids by NOT_A_TOKEN where the largest score `top` is NaN or infinite."""
    return ids.masked_fill(~top.isfinite(), NOT_A_TOKEN)


def uniform(sequence: Sequence) -> float:
    """Return the next random number of the sequence, in [0, 1) and exact in float32."""
    return sequence.random.getrandbits(24) * 2.0**-24
