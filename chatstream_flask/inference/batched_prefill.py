"""BatchedPrefill: prompts of several sequences, one after the other in one forward."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .cuda_graphs import GraphReplay
from .host_buffer import HostBuffer
from .padding import padded_size
from .slot_model import PackingForward, SlotModel, TokenBatch

SIZES = (16, 32, 64, 128, 192, 256, 384, 512)  # tokens of a forward; then multiples of 256


class Part(NamedTuple):
    """Tokens of one sequence, whose columns begin at `start`."""

    slot: int
    token_ids: list[int]
    start: int


class BatchedPrefill(Protocol):
    @property
    def most_tokens(self) -> int:
        """Of all parts together."""

    def logits(self, parts: list[Part]) -> Tensor:
        """`[parts, vocab]` after the last token of each, until the next call."""


def make_batched_prefill(
    slots: SlotModel, *, most_parts: int, most_tokens: int, device: torch.device, replays: bool
) -> BatchedPrefill | None:
    """None: the forward does not take tokens of any slots at once.

    :param most_tokens: that will be asked for
    :param replays: graphs of a few sizes, on CUDA; else the operations are launched each time
    """
    forward = slots.forward
    if not isinstance(forward, PackingForward):
        return None
    if forward.tile_tokens is None:
        return PlainPrefill(slots, forward)
    return PaddedPrefill(
        slots,
        forward,
        forward.tile_tokens,
        most_parts=most_parts,
        most_tokens=most_tokens,
        device=device,
        replays=replays,
    )


class PlainPrefill:
    def __init__(self, slots: SlotModel, forward: PackingForward) -> None:
        self.most_tokens = forward.most_tokens
        self._slots = slots
        self._forward = forward

    def logits(self, parts: list[Part]) -> Tensor:
        ids, positions, rows = flat(parts)
        columns = torch.tensor(positions)
        packed = TokenBatch(
            ids=torch.tensor(ids),
            positions=columns,
            rows=torch.tensor(rows),
            columns=columns,
            tiles=None,
            lasts=torch.tensor(lasts(parts)),
        )
        return self._forward.packed(packed, self._slots.cache)


class PaddedPrefill:
    """In few sizes, which may be graphs."""

    def __init__(
        self,
        slots: SlotModel,
        forward: PackingForward,
        tile_tokens: int,
        *,
        most_parts: int,
        most_tokens: int,
        device: torch.device,
        replays: bool,
    ) -> None:
        self.most_tokens = most_tokens
        self._slots = slots
        self._forward = forward
        self._tile_tokens = tile_tokens
        self._most_parts = most_parts
        self._inputs = HostBuffer(self._num_inputs(self.size(most_tokens)), torch.long, device)
        self._logits: Tensor | None = None  # [parts, vocab], made by the first forward
        self._graphs = GraphReplay(captures=replays)
        if replays:
            self._warm_up()

    def size(self, num_tokens: int) -> int:
        """Of the smallest forward that has room for these; others are padding."""
        return padded_size(num_tokens, SIZES, 256)

    def _warm_up(self) -> None:
        """So that no prompt waits for what is compiled or captured once."""
        for size in sorted({self.size(needed) for needed in range(1, self.most_tokens + 1)}):
            self._launch(size, [])

    def logits(self, parts: list[Part]) -> Tensor:
        num_tokens = sum(len(part.token_ids) for part in parts)
        if len(parts) > self._most_parts or num_tokens > self.most_tokens:
            raise ValueError(f"{num_tokens} tokens in {len(parts)} parts are too many for one forward")
        return self._launch(self.size(num_tokens), parts)[: len(parts)]

    def _launch(self, size: int, parts: list[Part]) -> Tensor:
        self._inputs.send(self._numbers(size, parts))
        self._graphs.run(size, partial(self._compute, size))
        assert self._logits is not None
        return self._logits

    def _num_tiles(self, size: int) -> int:
        """Of attention; a tile is of one slot only."""
        return -(-size // self._tile_tokens) + self._most_parts

    def _num_inputs(self, size: int) -> int:
        return 4 * size + 2 * self._num_tiles(size) + self._most_parts

    def _numbers(self, size: int, parts: list[Part]) -> list[int]:
        """Token ids, positions, rows and columns, `[size]` each; tiles; where the last token of a part is.

        Padding is in no tile, and goes into the scratch column.
        """
        ids, positions, rows = flat(parts)
        num_spare = size - len(ids)
        spare, scratch = [0] * num_spare, [self._slots.max_len] * num_spare
        firsts, counts = self._tiles([len(part.token_ids) for part in parts])
        no_tiles = [0] * (self._num_tiles(size) - len(firsts))
        tokens = [*ids, *spare, *positions, *spare, *rows, *spare, *positions, *scratch]
        no_parts = [0] * (self._most_parts - len(parts))
        return [*tokens, *firsts, *no_tiles, *counts, *no_tiles, *lasts(parts), *no_parts]

    def _tiles(self, lengths: list[int]) -> tuple[list[int], list[int]]:
        """The first token of each, and how many tokens it has."""
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
        inputs = self._inputs.twin(self._num_inputs(size))
        tokens, tiles, ends = torch.split(inputs, [4 * size, 2 * num_tiles, self._most_parts])
        ids, positions, rows, columns = tokens.view(4, size)
        packed = TokenBatch(ids, positions, rows, columns, tiles.view(2, num_tiles), ends)
        logits = self._forward.packed(packed, self._slots.cache)
        if self._logits is None:
            self._logits = torch.empty_like(logits)
        self._logits.copy_(logits)


def flat(parts: list[Part]) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions and slots of all their tokens."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for part in parts:
        ids += part.token_ids
        positions += range(part.start, part.start + len(part.token_ids))
        slots += [part.slot] * len(part.token_ids)
    return ids, positions, slots


def lasts(parts: list[Part]) -> list[int]:
    """Where the last token of each lies."""
    return [stop - 1 for stop in accumulate(len(part.token_ids) for part in parts)]
