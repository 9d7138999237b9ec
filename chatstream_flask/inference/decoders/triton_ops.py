"""Operations between the matrix products of a forward pass on CUDA, one or two Triton kernels each."""

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
    """Block sizes of attention: queries and keys per iteration, and the stages of its software pipeline."""

    queries: int
    keys: int
    stages: int


TILES = (Tile(128, 64, 3), Tile(64, 64, 2), Tile(64, 32, 2), Tile(32, 32, 2), Tile(16, 16, 1))


def best_tile(key_bytes: int, shared_bytes: int) -> Tile:
    """Return the largest tile that fits into the shared memory of a program, or else the smallest one.

    :param key_bytes: size of one key
    """

    def num_bytes(tile: Tile) -> int:
        return (tile.queries + 2 * tile.keys * tile.stages) * key_bytes  # keys and values

    return next((tile for tile in TILES if num_bytes(tile) <= shared_bytes), TILES[-1])


def fused_add_rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    residual: Tensor | None = None,
    residual_weight: Tensor | None = None,
) -> Tensor:
    """Add `residual` to x `[tokens, size]` in place, then return its RMS norm (arXiv 1910.07467).

    :param residual_weight: not None: `residual` is normed before it is added
    """
    out = torch.empty_like(x)
    tokens, size = x.shape
    kernels.fused_add_rms_norm[(tokens,)](
        x,
        x if residual is None else residual,
        weight if residual_weight is None else residual_weight,
        weight,
        out,
        eps,
        size,
        HAS_RESIDUAL=residual is not None,
        NORMS_RESIDUAL=residual_weight is not None,
        BLOCK=triton.next_power_of_2(size),
        num_warps=8 if size >= 2048 else 4,
    )
    return out


def rope_and_cache(
    heads: Tensor,
    slots: SlotLayer,
    write_index: tuple[Tensor, Tensor],
    positions: Tensor,
    *,
    num_heads: int,
    rotary: tuple[Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    """Norm and rotate queries and keys, store keys and values; return queries `[tokens, heads, head_dim]`.

    :param heads: queries, keys and values `[tokens, heads + 2 * kv_heads, head_dim]`
    :param write_index: slot and cache position of each token
    :param rotary: tables of cos and sin `[positions, head_dim]`, the first half of sin negated
    :param norms: weights of queries and keys, and epsilon
    """
    tokens, num_all, head_dim = heads.shape
    query = heads.new_empty(tokens, num_heads, head_dim)
    query_weight, key_weight, eps = norms or (heads, heads, 0.0)
    cos, sin = rotary or (heads, heads)
    keys, values = slots.keys, slots.values
    kernels.rope_and_cache[(tokens, num_all)](
        heads,
        query_weight,
        key_weight,
        cos,
        sin,
        positions,
        *write_index,
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
        HAS_NORMS=norms is not None,
        HAS_ROTARY=rotary is not None,
        HALF=head_dim // 2,
        BLOCK=triton.next_power_of_2(head_dim // 2),
        num_warps=1,
    )
    return query


def tile_tokens(tile: Tile, group: int) -> int:
    """Return the number of tokens of a tile, where each token has `group` queries for the same keys."""
    return max(tile.queries // group, 2)


def attention(
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
    """Return the attention of each query `[tokens, heads, head_dim]` over its slot, in the same shape.

    A tile of queries reads only the keys that it attends to, whatever the rest of the batch does. The softmax
    is computed online (arXiv 1805.02867).

    :param rows: the slot of each token
    :param num_splits: a power of two: programs that share the keys of one token; a second kernel combines
        their results
    :param tiles: `[2, tiles]`: first token and number of tokens of each tile, all of one slot and at most
        `tile_tokens`; None: each token is a tile
    """
    num_tokens, num_heads, head_dim = query.shape
    keys, values = slots.keys, slots.values
    num_kv_heads = keys.shape[1]
    group, block_dim = num_heads // num_kv_heads, triton.next_power_of_2(head_dim)
    tokens = 1 if tiles is None else tile_tokens(tile, group)
    num_tiles = num_tokens if tiles is None else tiles.shape[1]
    out = torch.empty_like(query)
    partial_out = partial_m = partial_l = out
    if num_splits > 1:
        partial_out = query.new_empty(num_tokens, num_heads, num_splits, head_dim, dtype=torch.float32)
        partial_m, partial_l = query.new_empty(2, num_tokens, num_heads, num_splits, dtype=torch.float32)
    kernels.attention[(num_tiles, num_kv_heads, num_splits)](
        query,
        keys,
        values,
        rows,
        positions,
        rows if tiles is None else tiles,
        num_tiles,
        out,
        partial_out,
        partial_m,
        partial_l,
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
        HAS_SOFTCAP=softcap is not None,
        PRECISION="ieee",
        num_warps=4 if tokens == 1 else 8,
        num_stages=tile.stages,
    )
    if num_splits > 1:
        kernels.combine_splits[(num_tokens * num_heads,)](
            partial_out,
            partial_m,
            partial_l,
            out,
            DIM=head_dim,
            BLOCK_DIM=block_dim,
            SPLITS=num_splits,
            num_warps=2,
        )
    return out


def act_and_mul(gate_up: Tensor, activation: int) -> Tensor:
    """Return activation(gate) * up `[tokens, size]` for gate and up side by side, `[tokens, 2 * size]`."""
    tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(tokens, size)
    kernels.act_and_mul[(tokens, triton.cdiv(size, 1024))](
        gate_up, out, size, ACTIVATION=activation, BLOCK=1024, num_warps=4
    )
    return out
