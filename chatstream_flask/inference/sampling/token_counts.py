"""TokenCounts: how often each slot's sequence has generated each token, on the device.

Used by the frequency and presence penalties.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer


class TokenCounts:
    """Counts `[slots, vocab]`, without the tokens of prompts.

    Each step adds only the new tokens. A slot is reset when another sequence occupies it.
    """

    def __init__(self, *, num_slots: int, max_len: int, vocab_size: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_slots, vocab_size, device=device)
        self._owners: list[Sequence | None] = [None] * num_slots
        self._num_tokens = [0] * num_slots
        self._indices = HostBuffer(max_len, torch.long, device)
        self._ones = torch.ones(max_len, device=device)

    def counts(self, sequences: list[Sequence], slots: Tensor) -> Tensor:
        """Return the counts `[sequences, vocab]`, brought up to date.

        :param slots: the sequences' slots, on the device
        """
        indices: list[int] = []
        for sequence in sequences:
            indices += self._new_indices(sequence)
        flat = self._counts.view(-1)
        for i in range(0, len(indices), len(self._ones)):
            sent = self._indices.send(indices[i : i + len(self._ones)])
            flat.index_add_(0, sent, self._ones[: len(sent)])  # whole numbers: the sum is exact in any order
        return self._counts.index_select(0, slots)

    def _new_indices(self, sequence: Sequence) -> list[int]:
        slot, vocab_size = sequence.slot, self._counts.shape[1]
        if self._owners[slot] is not sequence:
            self._owners[slot] = sequence
            self._num_tokens[slot] = sequence.num_prompt
            self._counts[slot] = 0.0
        new_ids = sequence.token_ids[self._num_tokens[slot] :]
        self._num_tokens[slot] = len(sequence.token_ids)
        return [slot * vocab_size + token_id for token_id in new_ids]
