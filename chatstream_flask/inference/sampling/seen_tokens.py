"""SeenTokens: the token ids each slot's sequence holds, on the device, for the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer

_WIDTH_STEP = 64  # widths are rounded up, so that shapes repeat


class SeenTokens:
    """`[slots, max_len]`, each row filled up with its first id: seeing a token twice changes nothing.

    Each step adds only the new tokens; a slot is written anew when another sequence has come into it.
    """

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._ids = torch.zeros(num_slots, max_len, dtype=torch.long, device=device)
        self._owners: list[Sequence | None] = [None] * num_slots
        self._num_tokens = [0] * num_slots
        self._new_ids = HostBuffer(max_len, torch.long, device)
        self._places = HostBuffer(max_len, torch.long, device)

    def ids(self, sequences: list[Sequence], slots: Tensor, vocab_size: int) -> Tensor:
        """`[len(slots), width]` for `slots` on the device, of which the sequences' ones are up to date."""
        max_len = self._ids.shape[1]
        ids: list[int] = []
        places: list[int] = []
        for sequence in sequences:
            start, new_ids = self._new_tokens(sequence, vocab_size)
            ids += new_ids
            places += range(sequence.slot * max_len + start, sequence.slot * max_len + start + len(new_ids))
        for i in range(0, len(ids), max_len):
            new_ids_sent = self._new_ids.send(ids[i : i + max_len])
            self._ids.view(-1).index_copy_(0, self._places.send(places[i : i + max_len]), new_ids_sent)
        longest = max(len(sequence.token_ids) for sequence in sequences)
        return self._ids[slots, : -(-longest // _WIDTH_STEP) * _WIDTH_STEP]

    def _new_tokens(self, sequence: Sequence, vocab_size: int) -> tuple[int, list[int]]:
        """The tokens that the table lacks and where they start; an id without a logit counts as the first."""
        slot, filler = sequence.slot, min(sequence.token_ids[0], vocab_size - 1)
        if self._owners[slot] is not sequence:
            self._owners[slot] = sequence
            self._num_tokens[slot] = 0
            self._ids[slot] = filler
        start, self._num_tokens[slot] = self._num_tokens[slot], len(sequence.token_ids)
        return start, [i if i < vocab_size else filler for i in sequence.token_ids[start:]]
