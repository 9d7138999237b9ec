"""SeenTokens: which token ids each slot's sequence already holds, for the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from .host_buffer import HostBuffer
from .sequence import Sequence

_BATCH = 4096  # ids sent at a time


class SeenTokens:
    """Boolean `[slots, vocab]`, made when a sequence first asks; each step adds only the new tokens."""

    def __init__(self, num_slots: int, vocab_size: int, device: torch.device) -> None:
        self._seen = torch.zeros(num_slots, vocab_size, dtype=torch.bool, device=device)
        self._owners: list[Sequence | None] = [None] * num_slots
        self._num_added = [0] * num_slots
        self._buffer = HostBuffer(_BATCH, torch.long, device)

    def of(self, sequences: list[Sequence], slots: Tensor) -> Tensor:
        """`[len(sequences), vocab]`; `slots` are the sequences' slots, on the device."""
        places: list[int] = []
        for sequence in sequences:
            places += self._new_places(sequence)
        for i in range(0, len(places), _BATCH):
            self._seen.view(-1).index_fill_(0, self._buffer.send(places[i : i + _BATCH]), True)
        return self._seen[slots]

    def _new_places(self, sequence: Sequence) -> list[int]:
        """Flat indices of the tokens not yet in the table; ids beyond the logits are left out."""
        slot, vocab_size = sequence.slot, self._seen.shape[1]
        if self._owners[slot] is not sequence:
            self._owners[slot] = sequence
            self._num_added[slot] = 0
            self._seen[slot] = False
        new_ids = sequence.token_ids[self._num_added[slot] :]
        self._num_added[slot] = len(sequence.token_ids)
        return [slot * vocab_size + i for i in new_ids if i < vocab_size]
