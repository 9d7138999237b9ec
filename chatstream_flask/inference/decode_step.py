"""DecodeStep: a decode step over tensors at fixed addresses, so that it can be replayed as a CUDA graph."""

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
from .sampling.candidates import GREEDY, SamplingPlan, SamplingTensors, sample_rows
from .sampling.sampler import mark_invalid
from .slot_model import SlotModel


class StepRow(NamedTuple):
    """The inputs of one row, in addition to its SamplingPlan."""

    source: int  # row of the previous step whose id is the input; -1: `token_id` is
    token_id: int
    position: int
    cache_position: int
    uniform: float


NUM_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48)  # beyond them, multiples of 16
NUM_FIELDS = len(StepRow._fields) + len(SamplingPlan._fields)


class StepShape(NamedTuple):
    """Steps of the same shape are the same sequence of operations, and share a CUDA graph."""

    num_rows: int
    key_len: int
    nums_candidates: tuple[int, ...]


class DecodeStep:
    """Decodes one token of each row; row i is slot i. The ids stay on the device for the next step."""

    def __init__(self, slots: SlotModel, *, num_slots: int, device: torch.device, captures: bool) -> None:
        """:param captures: replay each shape as a CUDA graph; False: launch its operations every time"""
        self._slots = slots
        self._num_slots = num_slots
        # float64 holds token ids and positions exactly.
        self._inputs = HostBuffer(NUM_FIELDS * num_slots, torch.float64, device)
        self._ids = torch.zeros(num_slots, dtype=torch.long, device=device)
        self._graphs = GraphReplay(captures=captures)

    def num_rows(self, needed: int) -> int:
        """Return the number of rows of the smallest shape with at least `needed` rows."""
        return min(padded_size(needed, NUM_ROWS, 16), self._num_slots)

    def key_len(self, needed: int) -> int:
        """Round up to one of four lengths between two powers of two: few shapes, and little padding."""
        if not self._slots.is_padded:
            return self._slots.max_len
        step = max(KEY_LEN_STEP, 1 << (needed - 1).bit_length() >> 3)
        return self._slots.key_len(round_up(needed, step))

    def padding(self) -> StepRow:
        """Return a padding row, which writes to the scratch position."""
        return StepRow(-1, 0, 0, self._slots.max_len, 0.0)

    def warm_up(self) -> None:
        """Compile and capture the greedy shapes now, so that no reply has to wait for it."""
        for num_rows in sorted({self.num_rows(needed) for needed in range(1, self._num_slots + 1)}):
            self.launch([self.padding()] * num_rows, [SamplingPlan()] * num_rows, self.key_len(1))

    def launch(self, rows: list[StepRow], plans: list[SamplingPlan], key_len: int) -> Tensor:
        """Start the step; return its ids `[rows]` on the device, valid until the next launch."""
        nums = {plan.num_candidates for plan in plans} - {GREEDY}
        shape = StepShape(len(rows), key_len, tuple(sorted(nums)))
        fields = chain(zip(*rows, strict=True), zip(*plans, strict=True))
        self._inputs.send(list(chain.from_iterable(fields)))
        self._graphs.run(shape, partial(self._compute, shape))
        return self._ids[: len(rows)]

    def _compute(self, shape: StepShape) -> None:
        inputs = self._inputs.on_device(NUM_FIELDS * shape.num_rows)
        fields = list(inputs.view(NUM_FIELDS, shape.num_rows, 1))
        source, token_ids, positions, cache_positions = (field.long() for field in fields[:4])
        ids = torch.where(source < 0, token_ids, self._ids[source.clamp(min=0)])
        ids = ids.clamp(min=0)  # a row with NOT_A_TOKEN has failed; any valid id will do
        logits = self._slots.logits(0, ids, positions, cache_positions, shape.key_len)[:, -1]
        uniforms, num_candidates, temperature, top_k, tail, min_p = (field.float() for field in fields[4:])
        params = SamplingTensors(temperature=temperature, top_k=top_k.long(), tail=tail, min_p=min_p)
        self._ids[: shape.num_rows] = _sample(
            logits.float(), shape.nums_candidates, num_candidates.squeeze(1), params, uniforms
        )


def _sample(
    scores: Tensor,
    nums_candidates: tuple[int, ...],
    num_candidates: Tensor,
    params: SamplingTensors,
    uniforms: Tensor,
) -> Tensor:
    """Sample all rows with each of `nums_candidates`, then keep for each row the result of its own number."""
    top, ids = scores.max(dim=-1)
    for num in nums_candidates:
        clamped = replace(params, top_k=params.top_k.clamp(max=max(num, 1)))
        ids = torch.where(num_candidates == num, sample_rows(scores, num, clamped, uniforms), ids)
    return mark_invalid(ids, top)
