"""TritonDecoder: a FusedDecoder's forward pass on CUDA, with few kernels between the matrix products."""

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
from . import triton_ops as ops
from .fuse import NotFusible
from .fused_decoder import FusedAttention, FusedDecoder, FusedLayer
from .fused_layers import RMSNorm, gelu_tanh
from .linear import Linear, PlainLinear

ACTIVATIONS: dict[Any, int] = {
    functional.silu: ops.SILU,
    gelu_tanh: ops.GELU_TANH,
    functional.gelu: ops.GELU,
}
PROGRAMS_PER_MULTIPROCESSOR = 2  # attention is split until there are about this many


class TritonDecoder:
    """A forward pass over slots; worker threads share it, as it holds only weights."""

    is_padded = False
    max_tokens = sys.maxsize

    def __init__(self, fused: FusedDecoder) -> None:
        """Bind a decoder to the kernels.

        :raises NotFusible: the kernels do not support this decoder
        """
        self._fused = fused
        layer, weight = fused.layers[0], fused.norm.weight
        activation = layer.feed_forward.activation
        if activation not in ACTIVATIONS:
            raise NotFusible(f"the activation {getattr(activation, '__name__', activation)} is not supported")
        self._activation = ACTIVATIONS[activation]
        if any(_epsilons(layer) != {fused.norm.eps} for layer in fused.layers):
            raise NotFusible("its norms have different epsilons")
        attention = layer.attention
        head_dim = _width(attention.qkv) // (attention.num_heads + 2 * attention.num_kv_heads)
        num_multiprocessors, shared_bytes = limits(weight.device)
        key_bytes = triton.next_power_of_2(head_dim) * weight.element_size()
        self._tile = ops.best_tile(key_bytes, shared_bytes)
        self._group = attention.group
        self._max_programs = PROGRAMS_PER_MULTIPROCESSOR * num_multiprocessors

    def __repr__(self) -> str:
        return f"<TritonDecoder {len(self._fused.layers)} layers>"

    @property
    def tile_tokens(self) -> int:
        return ops.tile_tokens(self._tile, self._group)

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Compute each token as a tile of its own, which is best for few tokens."""
        batch = TokenBatch.of_rows(ids, positions, cache, num_last)
        return self.forward_batch(batch, cache).view(len(ids), num_last, -1)

    def forward_batch(self, batch: TokenBatch, cache: SlotCache) -> Tensor:
        fused = self._fused
        x = fused.embed(batch.ids)
        residual: Tensor | None = None
        residual_norm: RMSNorm | None = None
        for layer, slots in zip(fused.layers, cache.slot_layers, strict=True):
            norms = layer.norms
            heads = layer.attention.qkv(_add_and_norm(x, norms.attention, residual, residual_norm))
            out = layer.attention.out(self._attend(layer.attention, heads, slots, batch).flatten(1))
            gate_up = layer.feed_forward.gate_up(
                _add_and_norm(x, norms.feed_forward, out, norms.attention_out)
            )
            residual = layer.feed_forward.down(ops.act_and_mul(gate_up, self._activation))
            residual_norm = norms.feed_forward_out
        assert residual is not None
        last = batch.logits_indices
        logits = fused.head(_add_and_norm(x[last], fused.norm, residual[last], residual_norm))
        return logits if fused.softcap is None else torch.tanh(logits / fused.softcap) * fused.softcap

    def _attend(
        self, attention: FusedAttention, heads: Tensor, slots: SlotLayer, batch: TokenBatch
    ) -> Tensor:
        """Return the input of `out`, `[tokens, heads, head_dim]`."""
        rotary, norms = attention.rotary, attention.query_key_norm
        query = ops.rope_and_cache(
            heads.view(len(heads), attention.num_heads + 2 * attention.num_kv_heads, -1),
            slots,
            (batch.rows, batch.cache_positions),
            batch.positions,
            num_heads=attention.num_heads,
            rotary=None if rotary is None else (rotary.cos, rotary.sin),
            norms=None if norms is None else (norms[0].weight, norms[1].weight, norms[0].eps),
        )
        return ops.attention(
            query,
            slots,
            batch.rows,
            batch.positions,
            scale=attention.scale,
            window=attention.window,
            softcap=attention.softcap,
            tile=self._tile,
            num_splits=self._num_splits(len(query)) if batch.tiles is None else 1,
            tiles=batch.tiles,
        )

    def _num_splits(self, num_tokens: int) -> int:
        """Return the number of programs that share the keys of one token, a power of two."""
        num_programs = num_tokens * self._fused.layers[0].attention.num_kv_heads
        num_splits = max(self._max_programs // num_programs, 1)
        return min(1 << num_splits.bit_length() - 1, ops.MAX_SPLITS)


def _add_and_norm(x: Tensor, norm: RMSNorm, residual: Tensor | None, residual_norm: RMSNorm | None) -> Tensor:
    residual_weight = None if residual_norm is None or residual is None else residual_norm.weight
    return ops.fused_add_rms_norm(x, norm.weight, norm.eps, residual, residual_weight)


def _epsilons(layer: FusedLayer) -> set[float]:
    norms = layer.norms
    of_layer = (norms.attention, norms.attention_out, norms.feed_forward, norms.feed_forward_out)
    return {norm.eps for norm in (*of_layer, *(layer.attention.query_key_norm or ())) if norm is not None}


def _width(linear: Linear) -> int:
    """Return the number of outputs."""
    if not isinstance(linear, PlainLinear):
        raise NotFusible("its weights are prepacked for oneDNN")
    return linear.weight.shape[0]


def limits(device: torch.device) -> tuple[int, int]:
    """Return a CUDA device's number of multiprocessors, and the bytes of shared memory of a program.

    On CPU, where tests run the kernels in Triton's interpreter, they are 1 and unlimited.
    """
    if device.type != "cuda":
        return 1, sys.maxsize
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
