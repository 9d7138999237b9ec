"""AsyncDecode: the next decode step is launched before the ids of the previous one are known to Python."""

from __future__ import annotations

import torch
from torch import Tensor

from ..engine.sequence import Sequence
from .decode_step import DecodeStep, StepRow
from .host_buffer import HostBuffer
from .sampling.candidates import SamplingPlan
from .sampling.sampler import NOT_A_TOKEN, uniform
from .slot_model import SlotModel

NUM_BUFFERS = 2  # one for the ids of the step just launched, one for the step that is waited for


class PendingStep:
    """A launched step with its sequences, whose ids are being copied to the host."""

    def __init__(self, sequences: dict[Sequence, int], ids: Tensor, buffer: HostBuffer) -> None:
        """:param sequences: with their row numbers"""
        self.sequences = sequences
        self._buffer = buffer
        self._num_rows = len(ids)
        self._ids: list[int] | None = None
        buffer.start_fetch(ids)

    @property
    def is_done(self) -> bool:
        """Whether `wait` has been called."""
        return self._ids is not None

    def wait(self) -> list[int]:
        """Wait for the step and return its ids by row."""
        if self._ids is None:
            self._ids = self._buffer.fetched(self._num_rows)
        return self._ids


class AsyncDecode:
    """Pipelined decoding: `decode` launches a step and returns the ids of the one before it.

    A sequence gets no ids from the call in which it joins. Only for sequences with `uses_plain_logits`, since
    Python does nothing between two of their tokens.

    A sequence that ends while a step is pending was computed once too often. What that step wrote lies behind
    its tokens and will be overwritten, but `wait_pending` must be called before a slot gets another owner.
    """

    def __init__(
        self,
        step: DecodeStep,
        slots: SlotModel,
        *,
        num_slots: int,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._step = step
        self._slots = slots
        self._vocab_size = vocab_size
        self._buffers = [HostBuffer(num_slots, torch.long, device) for _ in range(NUM_BUFFERS)]
        self._pending: PendingStep | None = None

    @property
    def is_pending(self) -> bool:
        return self._pending is not None

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        """Launch the next step and return the ids of the pending one."""
        previous = self._pending
        self._pending = self._launch(sequences, previous)
        return self._ids(previous, sequences)

    def finish(self, sequences: list[Sequence]) -> list[list[int]]:
        """Return the ids of the pending step without launching another."""
        previous, self._pending = self._pending, None
        return self._ids(previous, sequences)

    def wait_pending(self) -> bool:
        """Wait for the pending step, keeping its ids for the next `decode` or `finish`.

        Returns True if there is one: then each of its slots holds one position more than its sequence counts.
        """
        if self._pending is not None:
            self._wait(self._pending)
        return self._pending is not None

    def _ids(self, step: PendingStep | None, sequences: list[Sequence]) -> list[list[int]]:
        if step is None:
            return [[] for _ in sequences]
        ids = self._wait(step)
        return [[ids[row]] if (row := step.sequences.get(s)) is not None else [] for s in sequences]

    def _wait(self, step: PendingStep) -> list[int]:
        is_first = not step.is_done
        ids = step.wait()
        if is_first:
            for sequence, row in step.sequences.items():
                if ids[row] == NOT_A_TOKEN:
                    self._slots.cache.clear(row, sequence.num_cached)  # before the slot gets another owner
        return ids

    def _launch(self, sequences: list[Sequence], previous: PendingStep | None) -> PendingStep | None:
        sources = {} if previous is None else previous.sequences
        continuing = {s.slot: s for s in sequences if self._has_next(s, is_pending=s in sources)}
        if not continuing:
            return None
        num_rows = self._step.num_rows(1 + max(continuing))
        rows = [self._step.padding()] * num_rows
        plans = [SamplingPlan()] * num_rows
        for slot, sequence in continuing.items():
            rows[slot] = self._row(sequence, sources.get(sequence))
            plans[slot] = SamplingPlan.of(sequence.params, self._vocab_size)
        key_len = self._step.key_len(1 + max(row.position for row in rows))
        ids = self._step.launch(rows, plans, key_len)
        self._buffers.reverse()
        return PendingStep({s: slot for slot, s in continuing.items()}, ids, self._buffers[0])

    def _has_next(self, sequence: Sequence, *, is_pending: bool) -> bool:
        """Return False once max_new_tokens or the end of the slot is reached."""
        is_last = is_pending >= sequence.num_left
        return not is_last and sequence.num_cached + is_pending < self._slots.max_len

    def _row(self, sequence: Sequence, source: int | None) -> StepRow:
        position = sequence.num_cached + (source is not None)
        number = 0.0 if sequence.params.is_greedy else uniform(sequence)
        if source is not None:
            return StepRow(source, 0, position, position, number)
        return StepRow(-1, sequence.token_ids[position], position, position, number)
