"""AsyncDecode: the next step is launched before the ids of the last one are known to Python."""

from __future__ import annotations

import torch
from torch import Tensor

from ..engine.sequence import Sequence
from .decode_step import DecodeStep, StepRow
from .host_buffer import HostBuffer
from .sampling.candidates import SamplingPlan
from .sampling.sampler import NOT_A_TOKEN, uniform
from .slot_model import SlotModel

NUM_BUFFERS = 2  # ids of the step that is launched, and of the one that is waited for


class PendingStep:
    """A step on its way: who is in it, and their ids once it has landed."""

    def __init__(self, sequences: dict[Sequence, int], ids: Tensor, buffer: HostBuffer) -> None:
        self.sequences = sequences  # with their rows
        self._buffer = buffer
        self._num_rows = len(ids)
        self._ids: list[int] | None = None
        buffer.start_fetch(ids)

    @property
    def has_landed(self) -> bool:
        return self._ids is not None

    def land(self) -> list[int]:
        """Waits for it; ids by row."""
        if self._ids is None:
            self._ids = self._buffer.fetched(self._num_rows)
        return self._ids


class AsyncDecode:
    """A call of `decode` launches a step and gives the ids of the one before: none for those who just joined.

    Only for sequences that go by scores alone: Python has no part in their next token.

    A sequence that has ended meanwhile was in one step in vain. What that wrote lies beyond its tokens and is
    overwritten, but a slot may change hands only after `settle`.
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
        self._flight: PendingStep | None = None

    @property
    def is_flying(self) -> bool:
        return self._flight is not None

    def decode(self, sequences: list[Sequence]) -> list[list[int]]:
        before = self._flight
        self._flight = self._launched(sequences, before)
        return self._ids(before, sequences)

    def finish(self, sequences: list[Sequence]) -> list[list[int]]:
        """Launches nothing; gives the ids of the step before."""
        before, self._flight = self._flight, None
        return self._ids(before, sequences)

    def settle(self) -> bool:
        """Before slots are moved, or have a new owner. True: the newest column of each is not counted yet."""
        if self._flight is not None:
            self._land(self._flight)
        return self._flight is not None

    def _ids(self, flight: PendingStep | None, sequences: list[Sequence]) -> list[list[int]]:
        if flight is None:
            return [[] for _ in sequences]
        ids = self._land(flight)
        return [[ids[row]] if (row := flight.sequences.get(s)) is not None else [] for s in sequences]

    def _land(self, flight: PendingStep) -> list[int]:
        is_first = not flight.has_landed
        ids = flight.land()
        if is_first:
            for sequence, row in flight.sequences.items():
                if ids[row] == NOT_A_TOKEN:
                    self._slots.cache.clear(row, sequence.num_cached)  # its slot may be about to change
        return ids

    def _launched(self, sequences: list[Sequence], before: PendingStep | None) -> PendingStep | None:
        sources = {} if before is None else before.sequences
        going = {s.slot: s for s in sequences if self._has_next(s, is_ahead=s in sources)}
        if not going:
            return None
        num_rows = self._step.num_rows(1 + max(going))
        rows = [self._step.padding()] * num_rows
        choices = [SamplingPlan()] * num_rows
        for slot, sequence in going.items():
            rows[slot] = self._row(sequence, sources.get(sequence))
            choices[slot] = SamplingPlan.of(sequence.params, self._vocab_size)
        key_len = self._step.key_len(1 + max(row.position for row in rows))
        ids = self._step.launch(rows, choices, key_len)
        self._buffers.reverse()
        return PendingStep({s: slot for slot, s in going.items()}, ids, self._buffers[0])

    def _has_next(self, sequence: Sequence, *, is_ahead: bool) -> bool:
        """After its last token a step would be in vain, or beyond its slot."""
        is_last = sequence.request.num_generated + is_ahead >= sequence.params.max_new_tokens
        return not is_last and sequence.num_cached + is_ahead < self._slots.max_len

    def _row(self, sequence: Sequence, source: int | None) -> StepRow:
        position = sequence.num_cached + (source is not None)
        drawn = 0.0 if sequence.params.is_greedy else uniform(sequence)
        if source is not None:
            return StepRow(source, 0, position, position, drawn)
        return StepRow(-1, sequence.token_ids[position], position, position, drawn)
