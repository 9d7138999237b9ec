"""DecodeStep: one step over tensors that stay where they are, so that a graph of it can be replayed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from .cuda_graphs import GraphReplay
from .host_buffer import HostBuffer
from .padding import KEY_LEN_STEP, padded_size, round_up
from .sampling.candidates import GREEDY, SamplingPlan, SamplingTensors, drawn
from .sampling.sampler import marked
from .slot_model import SlotModel


class StepRow(NamedTuple):
    """What a step must know of one row, besides its SamplingPlan."""

    source: int  # the row of the step before whose id it goes on from; -1: from `token_id`
    token_id: int
    position: int
    column: int
    uniform: float


ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48)  # then multiples of 16
NUM_FIELDS = len(StepRow._fields) + len(SamplingPlan._fields)


class StepShape(NamedTuple):
    """Steps of one shape are the same operations."""

    num_rows: int
    key_len: int
    nums_candidates: tuple[int, ...]


class DecodeStep:
    """Row i is slot i. The ids of a step stay on the device, where the next step finds them."""

    def __init__(self, slots: SlotModel, *, num_slots: int, device: torch.device, replays: bool) -> None:
        """:param replays: graphs of its shapes, on CUDA; else the same operations are launched each time"""
        self._slots = slots
        self._num_slots = num_slots
        self._inputs = HostBuffer(NUM_FIELDS * num_slots, torch.float64, device)  # exact for all there is
        self._ids = torch.zeros(num_slots, dtype=torch.long, device=device)
        self._graphs = GraphReplay(captures=replays)

    def num_rows(self, needed: int) -> int:
        """Of the smallest shape that has room for these; others are padding."""
        return min(padded_size(needed, ROWS, 16), self._num_slots)

    def key_len(self, needed: int) -> int:
        """Four between a power of two and the next: there are few of them, and little is read in vain."""
        if not self._slots.is_padded:
            return self._slots.max_len
        step = max(KEY_LEN_STEP, 1 << (needed - 1).bit_length() >> 3)
        return self._slots.key_len(round_up(needed, step))

    def padding(self) -> StepRow:
        """Of nobody: into the scratch column."""
        return StepRow(-1, 0, 0, self._slots.max_len, 0.0)

    def warm_up(self) -> None:
        """So that no reply waits for what is compiled or captured once, but for rarer ways to choose."""
        for num_rows in sorted({self.num_rows(needed) for needed in range(1, self._num_slots + 1)}):
            self.launch([self.padding()] * num_rows, [SamplingPlan()] * num_rows, self.key_len(1))

    def launch(self, rows: list[StepRow], choices: list[SamplingPlan], key_len: int) -> Tensor:
        """Ids `[rows]`, on the device until the next launch."""
        nums = {choice.num_candidates for choice in choices} - {GREEDY}
        shape = StepShape(len(rows), key_len, tuple(sorted(nums)))
        fields = chain(zip(*rows, strict=True), zip(*choices, strict=True))
        self._inputs.send(list(chain.from_iterable(fields)))
        self._graphs.run(shape, partial(self._compute, shape))
        return self._ids[: len(rows)]

    def _compute(self, shape: StepShape) -> None:
        fields = list(self._inputs.twin(NUM_FIELDS * shape.num_rows).view(NUM_FIELDS, shape.num_rows, 1))
        source, known, positions, columns = (field.long() for field in fields[:4])
        ids = torch.where(source < 0, known, self._ids[source.clamp(min=0)])
        ids = ids.clamp(min=0)  # of a row that has no next token, and is about to end
        logits = self._slots.logits(0, ids, positions, columns, shape.key_len)[:, -1]
        uniforms, own_num, temperature, top_k, tail, min_p = (field.float() for field in fields[4:])
        columns = SamplingTensors(temperature=temperature, top_k=top_k.long(), tail=tail, min_p=min_p)
        self._ids[: shape.num_rows] = _chosen(
            logits.float(), shape.nums_candidates, own_num.squeeze(1), columns, uniforms
        )


def _chosen(
    scores: Tensor,
    nums_candidates: tuple[int, ...],
    own_num: Tensor,
    columns: SamplingTensors,
    uniforms: Tensor,
) -> Tensor:
    """Ids `[rows]`: all rows are drawn in each of these ways, then each has its own."""
    top, ids = scores.max(dim=-1)
    for num in nums_candidates:
        within = replace(columns, top_k=columns.top_k.clamp(max=max(num, 1)))
        ids = torch.where(own_num == num, drawn(scores, num, within, uniforms), ids)
    return marked(ids, top)
