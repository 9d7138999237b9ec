"""BatchedPrefill: tokens of several sequences, one after the other, in one forward pass."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .cuda_graphs import GraphReplay
from .host_buffer import HostBuffer
from .padding import padded_size
from .slot_model import BatchForward, SlotModel, TokenBatch

# Padded numbers of tokens; beyond them, multiples of 256.
SIZES = (16, 32, 64, 128, 192, 256, 384, 512)


class Part(NamedTuple):
    """Consecutive tokens of one sequence; the first one is at position `start`."""

    slot: int
    token_ids: list[int]
    start: int


class BatchedPrefill(Protocol):
    """Computes parts of several sequences together."""

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of all parts together."""

    def logits(self, parts: list[Part]) -> Tensor:
        """Return logits `[parts, vocab]` after the last token of each part, valid until the next call."""


def make_batched_prefill(
    slots: SlotModel, *, max_parts: int, max_tokens: int, device: torch.device, captures: bool
) -> BatchedPrefill | None:
    """Return None if the model's forward pass only takes rows of consecutive slots.

    :param max_parts: maximum number of parts in one call
    :param max_tokens: maximum number of tokens in one call
    :param captures: replay each padded size as a CUDA graph; False: launch its operations every time
    """
    forward = slots.forward
    if not isinstance(forward, BatchForward):
        return None
    if forward.tile_tokens is None:
        return ExactPrefill(slots, forward)
    return PaddedPrefill(
        slots,
        forward,
        forward.tile_tokens,
        max_parts=max_parts,
        max_tokens=max_tokens,
        device=device,
        captures=captures,
    )


class ExactPrefill:
    """Batched prefill without padding, on CPU."""

    def __init__(self, slots: SlotModel, forward: BatchForward) -> None:
        self.max_tokens = forward.max_tokens
        self._slots = slots
        self._forward = forward

    def logits(self, parts: list[Part]) -> Tensor:
        ids, positions, rows = flatten(parts)
        cache_positions = torch.tensor(positions)
        batch = TokenBatch(
            ids=torch.tensor(ids),
            positions=cache_positions,
            rows=torch.tensor(rows),
            cache_positions=cache_positions,
            tiles=None,
            logits_indices=torch.tensor(last_indices(parts)),
        )
        return self._forward.forward_batch(batch, self._slots.cache)


class PaddedPrefill:
    """Batched prefill padded to a few sizes, which can be captured as CUDA graphs."""

    def __init__(
        self,
        slots: SlotModel,
        forward: BatchForward,
        tile_tokens: int,
        *,
        max_parts: int,
        max_tokens: int,
        device: torch.device,
        captures: bool,
    ) -> None:
        self.max_tokens = max_tokens
        self._slots = slots
        self._forward = forward
        self._tile_tokens = tile_tokens
        self._max_parts = max_parts
        self._inputs = HostBuffer(self._num_inputs(self.size(max_tokens)), torch.long, device)
        self._logits: Tensor | None = None  # [max_parts, vocab], allocated by the first forward pass
        self._graphs = GraphReplay(captures=captures)
        if captures:
            self._warm_up()

    def size(self, num_tokens: int) -> int:
        """Return the smallest padded size with at least `num_tokens` tokens."""
        return padded_size(num_tokens, SIZES, 256)

    def _warm_up(self) -> None:
        """Compile and capture all sizes now, so that no prompt has to wait for it."""
        for size in sorted({self.size(needed) for needed in range(1, self.max_tokens + 1)}):
            self._launch(size, [])

    def logits(self, parts: list[Part]) -> Tensor:
        num_tokens = sum(len(part.token_ids) for part in parts)
        if len(parts) > self._max_parts or num_tokens > self.max_tokens:
            raise ValueError(
                f"{num_tokens} tokens in {len(parts)} parts; one forward pass takes at most "
                f"{self.max_tokens} tokens in {self._max_parts} parts"
            )
        return self._launch(self.size(num_tokens), parts)[: len(parts)]

    def _launch(self, size: int, parts: list[Part]) -> Tensor:
        self._inputs.send(self._input_values(size, parts))
        self._graphs.run(size, partial(self._compute, size))
        assert self._logits is not None
        return self._logits

    def _num_tiles(self, size: int) -> int:
        """Return the number of attention tiles; each holds tokens of one slot."""
        return -(-size // self._tile_tokens) + self._max_parts

    def _num_inputs(self, size: int) -> int:
        return 4 * size + 2 * self._num_tiles(size) + self._max_parts

    def _input_values(self, size: int, parts: list[Part]) -> list[int]:
        """Return ids, positions, rows and cache positions, `[size]` each; then tiles and logits indices.

        Padding belongs to no tile and is written to the scratch position.
        """
        ids, positions, rows = flatten(parts)
        num_padding = size - len(ids)
        zeros, scratch = [0] * num_padding, [self._slots.max_len] * num_padding
        firsts, counts = self._tiles([len(part.token_ids) for part in parts])
        no_tiles = [0] * (self._num_tiles(size) - len(firsts))
        tokens = [*ids, *zeros, *positions, *zeros, *rows, *zeros, *positions, *scratch]
        no_parts = [0] * (self._max_parts - len(parts))
        return [*tokens, *firsts, *no_tiles, *counts, *no_tiles, *last_indices(parts), *no_parts]

    def _tiles(self, lengths: list[int]) -> tuple[list[int], list[int]]:
        """Return the first token and the number of tokens of each tile."""
        firsts: list[int] = []
        counts: list[int] = []
        tile, begin = self._tile_tokens, 0
        for length in lengths:
            starts = range(0, length, tile)
            firsts += [begin + start for start in starts]
            counts += [min(tile, length - start) for start in starts]
            begin += length
        return firsts, counts

    def _compute(self, size: int) -> None:
        num_tiles = self._num_tiles(size)
        inputs = self._inputs.on_device(self._num_inputs(size))
        tokens, tiles, logits_indices = torch.split(inputs, [4 * size, 2 * num_tiles, self._max_parts])
        ids, positions, rows, cache_positions = tokens.view(4, size)
        batch = TokenBatch(ids, positions, rows, cache_positions, tiles.view(2, num_tiles), logits_indices)
        logits = self._forward.forward_batch(batch, self._slots.cache)
        if self._logits is None:
            self._logits = torch.empty_like(logits)
        self._logits.copy_(logits)


def flatten(parts: list[Part]) -> tuple[list[int], list[int], list[int]]:
    """Return the id, position and slot of every token."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for part in parts:
        ids += part.token_ids
        positions += range(part.start, part.start + len(part.token_ids))
        slots += [part.slot] * len(part.token_ids)
    return ids, positions, slots


def last_indices(parts: list[Part]) -> list[int]:
    """Return the index of the last token of each part among all tokens."""
    return [stop - 1 for stop in accumulate(len(part.token_ids) for part in parts)]
