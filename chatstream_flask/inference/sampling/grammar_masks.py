"""TokenMasks: what the grammars of some rows allow next, as scores to be added."""

from __future__ import annotations

from collections.abc import Sequence as List

import torch
from torch import Tensor

from ...engine.sequence import Matcher
from ..host_buffer import HostBuffer


class TokenMasks:
    """All matchers of a thread are for the same tokenizer; its masks have `num_bytes` each."""

    def __init__(self, *, num_slots: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._device = device
        self._powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
        self._buffer: HostBuffer | None = None

    def scores(self, matchers: List[Matcher], vocab_size: int) -> Tensor:
        """0 for each token that may come next, else -inf: `[matchers, vocab]`.

        A matcher that failed allows nothing. Added, so that scores that are not numbers stay so.
        """
        num_bytes = matchers[0].num_bytes
        if self._buffer is None:
            self._buffer = HostBuffer(self._num_slots * num_bytes, torch.uint8, self._device)
        host = self._buffer.host(len(matchers) * num_bytes).view(-1, num_bytes)
        for matcher, row in zip(matchers, host, strict=True):
            if not matcher.write_mask(row.data_ptr(), num_bytes):
                row.zero_()
        masks = self._buffer.flush(len(matchers) * num_bytes).view(-1, num_bytes, 1)
        is_refused = ((masks & self._powers) == 0).flatten(1)
        missing = vocab_size - is_refused.shape[1]  # scores for which there is no token: never
        is_refused = torch.nn.functional.pad(is_refused, (0, missing), value=True)
        return torch.zeros(is_refused.shape, device=self._device).masked_fill_(is_refused, -torch.inf)
