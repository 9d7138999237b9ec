"""TritonDecoder: a FusedDecoder's forward on CUDA, with few kernels between its large products."""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional

from ..attention_mask import AttentionMask
from ..kv_cache import SlotCache, SlotLayer
from ..slot_model import TokenBatch
from . import triton_ops as operations
from .fuse import NotFusible
from .fused_decoder import FusedAttention, FusedDecoder, FusedLayer
from .fused_layers import RMSNorm, gelu_tanh
from .linear import Linear, PlainLinear

ACTIVATIONS: dict[Any, int] = {
    functional.silu: operations.SILU,
    gelu_tanh: operations.GELU_TANH,
    functional.gelu: operations.GELU,
}
PROGRAMS_PER_CORE = 2  # that attention is shared out among, on each multiprocessor


class TritonDecoder:
    """Shared by the generation threads, as it holds only weights."""

    is_padded = False
    most_tokens = sys.maxsize

    def __init__(self, fused: FusedDecoder) -> None:
        """:raises NotFusible: it is not made for this decoder"""
        self._fused = fused
        layer, weight = fused.layers[0], fused.norm.weight
        if layer.feed_forward.activation not in ACTIVATIONS:
            raise NotFusible("its activation is not there")
        self._activation = ACTIVATIONS[layer.feed_forward.activation]
        if any(_epsilons(layer) != {fused.norm.eps} for layer in fused.layers):
            raise NotFusible("its norms differ in epsilon")
        attention = layer.attention
        head_dim = _width(attention.qkv) // (attention.num_heads + 2 * attention.num_key_heads)
        num_cores, shared_bytes = limits(weight.device)
        key_bytes = triton.next_power_of_2(head_dim) * weight.element_size()
        self._tile = operations.best_tile(key_bytes, shared_bytes)
        self._group = attention.group
        self._most_programs = PROGRAMS_PER_CORE * num_cores

    def __repr__(self) -> str:
        return f"<TritonDecoder {len(self._fused.layers)} layers>"

    @property
    def tile_tokens(self) -> int:
        return operations.tile_tokens(self._tile, self._group)

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Each token is a tile, which is best for a few."""
        return self.packed(TokenBatch.of_rows(ids, positions, cache, num_last), cache).view(
            len(ids), num_last, -1
        )

    def packed(self, tokens: TokenBatch, cache: SlotCache) -> Tensor:
        fused = self._fused
        x = fused.embed(tokens.ids)
        added: Tensor | None = None
        added_norm: RMSNorm | None = None
        for layer, slots in zip(fused.layers, cache.slot_layers, strict=True):
            norms = layer.norms
            heads = layer.attention.qkv(_normed(x, norms.attention, added, added_norm))
            out = layer.attention.out(self._seen(layer.attention, heads, slots, tokens).flatten(1))
            gate_up = layer.feed_forward.gate_up(_normed(x, norms.feed_forward, out, norms.attention_out))
            added = layer.feed_forward.down(operations.gate(gate_up, self._activation))
            added_norm = norms.feed_forward_out
        assert added is not None
        lasts = tokens.lasts
        logits = fused.head(_normed(x[lasts], fused.norm, added[lasts], added_norm))
        return logits if fused.softcap is None else torch.tanh(logits / fused.softcap) * fused.softcap

    def _seen(self, attention: FusedAttention, heads: Tensor, slots: SlotLayer, tokens: TokenBatch) -> Tensor:
        """What `out` is to be given, `[tokens, heads, head_dim]`."""
        rotary, norms = attention.rotary, attention.query_key_norm
        query = operations.turn_and_store(
            heads.view(len(heads), attention.num_heads + 2 * attention.num_key_heads, -1),
            slots,
            (tokens.rows, tokens.columns),
            tokens.positions,
            num_heads=attention.num_heads,
            turning=None if rotary is None else (rotary.cos, rotary.sin),
            norms=None if norms is None else (norms[0].weight, norms[1].weight, norms[0].eps),
        )
        return operations.attend(
            query,
            slots,
            tokens.rows,
            tokens.positions,
            scale=attention.scale,
            window=attention.window,
            softcap=attention.softcap,
            tile=self._tile,
            num_splits=self._num_splits(len(query)) if tokens.tiles is None else 1,
            tiles=tokens.tiles,
        )

    def _num_splits(self, num_tokens: int) -> int:
        """A power of two."""
        num_programs = num_tokens * self._fused.layers[0].attention.num_key_heads
        room = max(self._most_programs // num_programs, 1)
        return min(1 << room.bit_length() - 1, operations.MAX_SPLITS)


def _normed(x: Tensor, norm: RMSNorm, added: Tensor | None, added_norm: RMSNorm | None) -> Tensor:
    added_weight = None if added_norm is None or added is None else added_norm.weight
    return operations.add_and_norm(x, norm.weight, norm.eps, added, added_weight)


def _epsilons(layer: FusedLayer) -> set[float]:
    norms = layer.norms
    of_layer = (norms.attention, norms.attention_out, norms.feed_forward, norms.feed_forward_out)
    return {norm.eps for norm in (*of_layer, *(layer.attention.query_key_norm or ())) if norm is not None}


def _width(linear: Linear) -> int:
    """Of what comes out of it."""
    if not isinstance(linear, PlainLinear):
        raise NotFusible("its weights are packed for oneDNN")
    return linear.weight.shape[0]


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a CUDA device, and bytes of shared memory that a program may have on one.

    On CPU, where Triton's interpreter takes its place in tests: 1 and no bound.
    """
    if device.type != "cuda":
        return 1, sys.maxsize
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
