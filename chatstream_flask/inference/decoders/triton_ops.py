"""What a step on CUDA does between its large products: norms, rotary, attention, gating. Few kernels each."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..kv_cache import SlotLayer
from . import triton_kernels as kernels

MAX_SPLITS = 32
SILU, GELU_TANH, GELU = 0, 1, 2  # activations


class Tile(NamedTuple):
    """Of attention: how many queries and keys a program has before it, and how many of the latter are read
    ahead.
    """

    queries: int
    keys: int
    stages: int


TILES = (Tile(128, 64, 3), Tile(64, 64, 2), Tile(64, 32, 2), Tile(32, 32, 2), Tile(16, 16, 1))


def best_tile(key_bytes: int, shared_bytes: int) -> Tile:
    """The largest that the shared memory of a multiprocessor has room for; the smallest if none."""

    def num_bytes(tile: Tile) -> int:
        return (tile.queries + 2 * tile.keys * tile.stages) * key_bytes  # values as well as keys

    return next((tile for tile in TILES if num_bytes(tile) <= shared_bytes), TILES[-1])


def add_and_norm(
    x: Tensor, weight: Tensor, eps: float, added: Tensor | None = None, added_weight: Tensor | None = None
) -> Tensor:
    """RMS norm (arXiv 1910.07467) of x `[tokens, size]`, to which `added` is added first, in place.

    :param added_weight: `added` is normed too
    """
    out = torch.empty_like(x)
    tokens, size = x.shape
    kernels.add_and_norm[(tokens,)](
        x,
        x if added is None else added,
        weight if added_weight is None else added_weight,
        weight,
        out,
        eps,
        size,
        ADDS=added is not None,
        NORMS_ADDED=added_weight is not None,
        BLOCK=triton.next_power_of_2(size),
        num_warps=8 if size >= 2048 else 4,
    )
    return out


def turn_and_store(
    heads: Tensor,
    slots: SlotLayer,
    place: tuple[Tensor, Tensor],
    positions: Tensor,
    *,
    num_heads: int,
    turning: tuple[Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    """Queries `[tokens, heads, head_dim]`, normed and turned; keys and values go to their slots.

    :param heads: queries, keys and values `[tokens, heads + 2 * key_heads, head_dim]`
    :param place: slot and column of each token
    :param turning: tables of cos and sin `[positions, head_dim]`, the first half of the latter negated
    :param norms: weights of queries and keys, and epsilon
    """
    tokens, num_all, head_dim = heads.shape
    query = heads.new_empty(tokens, num_heads, head_dim)
    query_weight, key_weight, eps = norms or (heads, heads, 0.0)
    cos, sin = turning or (heads, heads)
    keys, values = slots.keys, slots.values
    kernels.turn_and_store[(tokens, num_all)](
        heads,
        query_weight,
        key_weight,
        cos,
        sin,
        positions,
        *place,
        query,
        keys,
        values,
        eps,
        num_heads,
        (num_all - num_heads) // 2,
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        NORMS=norms is not None,
        TURNS=turning is not None,
        HALF=head_dim // 2,
        BLOCK=triton.next_power_of_2(head_dim // 2),
        num_warps=1,
    )
    return query


def tile_tokens(tile: Tile, group: int) -> int:
    """Of a tile of queries, of which each token has `group` for the same keys."""
    return max(tile.queries // group, 2)


def attend(
    query: Tensor,
    slots: SlotLayer,
    rows: Tensor,
    positions: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    tile: Tile,
    num_splits: int = 1,
    tiles: Tensor | None = None,
) -> Tensor:
    """What each query `[tokens, heads, head_dim]` sees in its slot, up to its position: of the same shape.

    A tile of queries reads the keys that they see and no others, whatever the rest of the batch does; their
    softmax is computed as they come (arXiv 1805.02867).

    :param rows: the slot of each
    :param num_splits: a power of two: programs that share out the keys of one token; what they find is
        combined after that
    :param tiles: `[2, tiles]`: the first token of each, and how many it has, of one slot and no more than
        `tile_tokens`; None: each token is one
    """
    num_tokens, num_heads, head_dim = query.shape
    keys, values = slots.keys, slots.values
    num_key_heads = keys.shape[1]
    group, block_dim = num_heads // num_key_heads, triton.next_power_of_2(head_dim)
    tokens = 1 if tiles is None else tile_tokens(tile, group)
    num_tiles = num_tokens if tiles is None else tiles.shape[1]
    out = torch.empty_like(query)
    parts = heights = sums = out
    if num_splits > 1:
        parts = query.new_empty(num_tokens, num_heads, num_splits, head_dim, dtype=torch.float32)
        heights, sums = query.new_empty(2, num_tokens, num_heads, num_splits, dtype=torch.float32)
    kernels.attend[(num_tiles, num_key_heads, num_splits)](
        query,
        keys,
        values,
        rows,
        positions,
        rows if tiles is None else tiles,
        num_tiles,
        out,
        parts,
        heights,
        sums,
        scale,
        softcap or 1.0,
        window or 1 << 30,
        num_heads,
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        GROUP=group,
        TOKENS=tokens,
        QUERIES=max(16, triton.next_power_of_2(tokens * group)),
        DIM=head_dim,
        BLOCK_DIM=block_dim,
        KEYS=tile.keys,
        SPLITS=num_splits,
        CAPS=softcap is not None,
        PRECISION="ieee",
        num_warps=4 if tokens == 1 else 8,
        num_stages=tile.stages,
    )
    if num_splits > 1:
        kernels.combine[(num_tokens * num_heads,)](
            parts, heights, sums, out, DIM=head_dim, BLOCK_DIM=block_dim, SPLITS=num_splits, num_warps=2
        )
    return out


def gate(gate_up: Tensor, activation: int) -> Tensor:
    """activation(gate) * up `[tokens, size]` for both side by side, `[tokens, 2 * size]`."""
    tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(tokens, size)
    kernels.gate[(tokens, triton.cdiv(size, 1024))](
        gate_up, out, size, ACTIVATION=activation, BLOCK=1024, num_warps=4
    )
    return out
