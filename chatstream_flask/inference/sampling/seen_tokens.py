"""SeenTokens: the token ids of each slot's sequence, on the device, for the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer
from ..padding import round_up

_WIDTH_STEP = 64  # the width is rounded up to a multiple, so that shapes repeat


class SeenTokens:
    """Token ids `[slots, max_len]`; each row is padded with its first id, as duplicates change nothing.

    Each step adds only the new tokens. A slot is rewritten when another sequence occupies it.
    """

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._ids = torch.zeros(num_slots, max_len, dtype=torch.long, device=device)
        self._owners: list[Sequence | None] = [None] * num_slots
        self._num_tokens = [0] * num_slots
        self._new_ids = HostBuffer(max_len, torch.long, device)
        self._indices = HostBuffer(max_len, torch.long, device)

    def ids(self, sequences: list[Sequence], slots: Tensor, vocab_size: int) -> Tensor:
        """Return the ids `[sequences, width]` of the sequences, brought up to date.

        :param slots: the sequences' slots, on the device
        """
        max_len = self._ids.shape[1]
        ids: list[int] = []
        indices: list[int] = []
        for sequence in sequences:
            start, new_ids = self._new_tokens(sequence, vocab_size)
            ids += new_ids
            first = sequence.slot * max_len + start
            indices += range(first, first + len(new_ids))
        for i in range(0, len(ids), max_len):
            new_ids_sent = self._new_ids.send(ids[i : i + max_len])
            self._ids.view(-1).index_copy_(0, self._indices.send(indices[i : i + max_len]), new_ids_sent)
        longest = max(len(sequence.token_ids) for sequence in sequences)
        return self._ids[slots, : round_up(longest, _WIDTH_STEP)]

    def _new_tokens(self, sequence: Sequence, vocab_size: int) -> tuple[int, list[int]]:
        """Return where the tokens missing in the table start, and those tokens.

        An id beyond the logits is replaced by the first id of the sequence.
        """
        slot, filler = sequence.slot, min(sequence.token_ids[0], vocab_size - 1)
        if self._owners[slot] is not sequence:
            self._owners[slot] = sequence
            self._num_tokens[slot] = 0
            self._ids[slot] = filler
        start, self._num_tokens[slot] = self._num_tokens[slot], len(sequence.token_ids)
        return start, [i if i < vocab_size else filler for i in sequence.token_ids[start:]]
