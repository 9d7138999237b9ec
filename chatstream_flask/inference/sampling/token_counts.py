"""TokenCounts: how often each slot's sequence has generated each token, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer


class TokenCounts:
    """`[slots, vocab]`. Each step adds only the new tokens; the prompt's do not count.

    A slot is counted anew when another sequence has come into it.
    """

    def __init__(self, *, num_slots: int, max_len: int, vocab_size: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_slots, vocab_size, device=device)
        self._owners: list[Sequence | None] = [None] * num_slots
        self._num_tokens = [0] * num_slots
        self._places = HostBuffer(max_len, torch.long, device)
        self._ones = torch.ones(max_len, device=device)

    def counts(self, sequences: list[Sequence], slots: Tensor) -> Tensor:
        """`[len(sequences), vocab]`, where `slots` are theirs, on the device."""
        places: list[int] = []
        for sequence in sequences:
            places += self._new_places(sequence)
        flat = self._counts.view(-1)
        for i in range(0, len(places), len(self._ones)):
            sent = self._places.send(places[i : i + len(self._ones)])
            flat.index_add_(0, sent, self._ones[: len(sent)])  # whole numbers: exact in any order
        return self._counts.index_select(0, slots)

    def _new_places(self, sequence: Sequence) -> list[int]:
        slot, vocab_size = sequence.slot, self._counts.shape[1]
        if self._owners[slot] is not sequence:
            self._owners[slot] = sequence
            self._num_tokens[slot] = sequence.num_prompt
            self._counts[slot] = 0.0
        new_ids = sequence.token_ids[self._num_tokens[slot] :]
        self._num_tokens[slot] = len(sequence.token_ids)
        return [slot * vocab_size + token_id for token_id in new_ids]
