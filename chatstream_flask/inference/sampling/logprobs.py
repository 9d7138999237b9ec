"""Logprobs: log-probabilities of the new tokens, for the rows that ask for them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import MAX_LOGPROBS
from ...engine.reply_text import TokenLogprob
from ...engine.sequence import Sequence
from ..host_buffer import HostBuffer
from .candidates import largest

NUM_SORTED = 32  # tokens; the same for all rows, so that a row does not depend on what others ask for


class Logprobs:
    """Computes log-probabilities from the unprocessed logits.

    `start` is called after the sampler, `finish` once the ids are known. It plans once per batch composition,
    and costs nothing if no row asks.
    """

    def __init__(self, *, num_slots: int, device: torch.device) -> None:
        self._device = device
        self._values = HostBuffer(num_slots * (1 + MAX_LOGPROBS), torch.float32, device)
        self._top_ids = HostBuffer(num_slots * MAX_LOGPROBS, torch.long, device)
        self._all_rows: list[Sequence | None] = []
        self._asking: list[tuple[int, Sequence]] = []
        self._rows: Tensor | None = None
        self._num_top = 0

    def start(self, logits: Tensor, ids: Tensor, rows: list[Sequence | None]) -> None:
        """Start to compute from logits `[rows, vocab]` and the sampled ids `[rows]`."""
        if rows != self._all_rows:
            self._plan(rows, logits.shape[1])
        if self._rows is None:
            return
        scores = logits.index_select(0, self._rows).float().log_softmax(-1)
        chosen = ids.index_select(0, self._rows).clamp(min=0)  # NOT_A_TOKEN is negative
        values = scores.gather(1, chosen[:, None])
        if self._num_top:
            top, top_ids = largest(scores, min(NUM_SORTED, scores.shape[1]))
            values = torch.cat([values, top[:, : self._num_top]], dim=1)
            self._top_ids.start_fetch(top_ids[:, : self._num_top].flatten())
        self._values.start_fetch(values.flatten())

    def finish(self, ids: list[int]) -> None:
        """Append to `logprobs` of the sequences that ask.

        :param ids: the sampled ids of all rows
        """
        if not self._asking:
            return
        num_top = self._num_top
        values = self._values.fetched(len(self._asking) * (1 + num_top))
        top_ids = self._top_ids.fetched(len(self._asking) * num_top)
        for i, (row, sequence) in enumerate(self._asking):
            num = min(sequence.params.num_logprobs or 0, num_top)
            own, first = i * (1 + num_top), i * num_top
            top = zip(top_ids[first : first + num], values[own + 1 : own + 1 + num], strict=True)
            sequence.logprobs.append(TokenLogprob(ids[row], values[own], tuple(top)))

    def _plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        self._all_rows = list(rows)
        self._asking = [
            (row, s) for row, s in enumerate(rows) if s is not None and s.params.num_logprobs is not None
        ]
        self._rows = (
            torch.tensor([row for row, _ in self._asking], device=self._device) if self._asking else None
        )
        is_top_wanted = any(sequence.params.num_logprobs for _, sequence in self._asking)
        self._num_top = min(MAX_LOGPROBS, vocab_size) if is_top_wanted else 0
