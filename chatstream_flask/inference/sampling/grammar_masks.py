"""TokenMasks: which tokens the grammars of some rows allow next, as additive masks."""

from __future__ import annotations

from collections.abc import Sequence as List

import torch
from torch import Tensor

from ...engine.sequence import Matcher
from ..host_buffer import HostBuffer


class TokenMasks:
    """Copies the bit masks of grammar matchers to the device.

    All matchers of a worker thread belong to the same tokenizer, so their masks have the same size.
    """

    def __init__(self, *, num_slots: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._device = device
        self._powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
        self._buffer: HostBuffer | None = None

    def scores(self, matchers: List[Matcher], vocab_size: int) -> Tensor:
        """Return `[matchers, vocab]`: 0 for each allowed token, -inf for all others.

        A matcher that has failed allows no token. The mask is additive so that NaN scores stay NaN.
        """
        num_bytes = matchers[0].num_bytes
        if self._buffer is None:
            self._buffer = HostBuffer(self._num_slots * num_bytes, torch.uint8, self._device)
        host = self._buffer.host(len(matchers) * num_bytes).view(-1, num_bytes)
        for matcher, row in zip(matchers, host, strict=True):
            if not matcher.write_mask(row.data_ptr(), num_bytes):
                row.zero_()
        masks = self._buffer.flush(len(matchers) * num_bytes).view(-1, num_bytes, 1)
        is_forbidden = ((masks & self._powers) == 0).flatten(1)
        num_unused = vocab_size - is_forbidden.shape[1]  # logits without a token
        is_forbidden = torch.nn.functional.pad(is_forbidden, (0, num_unused), value=True)
        return torch.zeros(is_forbidden.shape, device=self._device).masked_fill_(is_forbidden, -torch.inf)
