"""Sampler: logits and every row's own parameters -> token ids, one call per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer
from .candidates import SamplingPlan, SamplingTensors, drawn
from .logits_processors import LogitsProcessors

NOT_A_TOKEN = -1  # the id of a row whose logits are not numbers, or whose grammar allows none


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that take the same path."""

    sequences: list[Sequence]
    rows: Tensor
    num_candidates: int
    columns: SamplingTensors


class Sampler:
    """Plans once per batch composition (groups, parameter tensors), then only computes."""

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._device = device
        self._uniforms = HostBuffer(num_slots, torch.float32, device)
        self._rules = LogitsProcessors(num_slots=num_slots, max_len=max_len, device=device)
        self._planned: list[tuple[Sequence, int] | None] = []  # with their slots
        self._groups: list[Group] = []

    def sample(self, logits: Tensor, rows: list[Sequence | None]) -> Tensor:
        """Ids `[rows]` for logits `[rows, vocab]`, which stay as they are.

        None is a padding row, its id means nothing.
        """
        placed = [None if sequence is None else (sequence, sequence.slot) for sequence in rows]
        if placed != self._planned:
            self._plan(rows, logits.shape[1])
            self._planned = placed
        scores = self._rules.apply(logits)
        top, ids = scores.max(dim=-1)  # the greedy choice; NaN wins every comparison
        for group, uniforms in zip(self._groups, self._draws(), strict=True):
            own = scores if len(group.sequences) == len(scores) else scores[group.rows]
            ids.index_copy_(0, group.rows, drawn(own, group.num_candidates, group.columns, uniforms))
        return marked(ids, top)

    def _draws(self) -> list[Tensor]:
        """One uniform number per sampled row; a column for each group."""
        values = [uniform(s) for group in self._groups for s in group.sequences]
        sizes = [len(group.sequences) for group in self._groups]
        return list(torch.split(self._uniforms.send(values)[:, None], sizes)) if values else []

    def _plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        sampled: dict[int, list[tuple[int, Sequence, SamplingPlan]]] = {}
        for row, sequence in enumerate(rows):
            if sequence is not None and not sequence.params.is_greedy:
                choice = SamplingPlan.of(sequence.params, vocab_size)
                sampled.setdefault(choice.num_candidates, []).append((row, sequence, choice))
        self._groups = [self._group(num, members) for num, members in sampled.items()]
        self._rules.plan(rows, vocab_size)

    def _group(self, num: int, members: list[tuple[int, Sequence, SamplingPlan]]) -> Group:
        rows, sequences, choices = zip(*members, strict=True)
        columns = SamplingTensors(
            temperature=self._column([choice.temperature for choice in choices]),
            top_k=self._tensor([choice.top_k for choice in choices])[:, None],
            tail=self._column([choice.tail for choice in choices]),
            min_p=self._column([c.min_p for c in choices]) if any(c.min_p for c in choices) else None,
        )
        return Group(
            sequences=list(sequences), rows=self._tensor(list(rows)), num_candidates=num, columns=columns
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def greedy(logits: Tensor) -> Tensor:
    """The likeliest ids `[..]` for logits `[.., vocab]`, marked."""
    top, ids = logits.max(dim=-1)
    return marked(ids, top)


def marked(ids: Tensor, top: Tensor) -> Tensor:
    """NOT_A_TOKEN where the largest score is not a number, or allows none."""
    return ids.masked_fill(~top.isfinite(), NOT_A_TOKEN)


def uniform(sequence: Sequence) -> float:
    """The next of a sequence's own, in [0, 1) and exact in float32."""
    return sequence.random.getrandbits(24) * 2.0**-24
