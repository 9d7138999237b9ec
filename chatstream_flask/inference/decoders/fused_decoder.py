"""FusedDecoder: the forward pass of a llama-like model in few operations.

At small batch sizes, launching the operations takes most of the time of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..attention_mask import AttentionMask
from ..kv_cache import SlotCache, SlotLayer
from .fused_layers import FeedForward, RMSNorm, Rotary
from .linear import Linear

MAX_TOKENS_FOR_PRODUCTS = 4  # of a row, on CPU; up to this, attention by plain products is faster


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs that all layers of a forward pass share, by layer kind where it matters."""

    shape: tuple[int, int]  # number of rows, tokens of each row
    write_index: tuple[Tensor, Tensor]  # slot and cache position of each token, `[rows * tokens]`
    angles: Mapping[str, tuple[Tensor, Tensor]]
    masks: Mapping[str, Tensor]  # `[rows * kv_heads, group * tokens, key_len]`
    uses_products: bool  # compute attention as two plain matrix products


@dataclass(frozen=True, kw_only=True)
class FusedAttention:
    """Attention with query, key and value as one product.

    The grouped queries (arXiv 2305.13245) of a KV head are rows of one attention.
    """

    qkv: Linear
    out: Linear
    num_heads: int
    num_kv_heads: int
    scale: float
    kind: str  # layer kind, for masks and angles
    window: int | None  # number of keys that a token attends to; the mask contains it too
    rotary: Rotary | None
    query_key_norm: tuple[RMSNorm, RMSNorm] | None
    softcap: float | None

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.num_heads // self.num_kv_heads

    def __call__(self, x: Tensor, inputs: Inputs, slots: SlotLayer) -> Tensor:
        """Return the input of `out`, `[rows * tokens, heads * head_dim]`, for x `[rows * tokens, hidden]`."""
        num_heads, num_kv_heads = self.num_heads, self.num_kv_heads
        num_rotated = num_heads + num_kv_heads
        heads = self.qkv(x).view(x.shape[0], num_rotated + num_kv_heads, -1)
        query_key = heads[:, :num_rotated]
        if self.query_key_norm is not None:
            query_key = self._normed(query_key)
        if self.rotary is not None:
            query_key = self.rotary.rotated(query_key, inputs.angles[self.kind])
        slots.write(inputs.write_index, query_key[:, num_heads:], heads[:, num_rotated:])
        query = self._grouped(query_key[:, :num_heads], *inputs.shape)
        mask = inputs.masks[self.kind]
        if inputs.uses_products or self.softcap is not None:
            output = self._by_products(query, slots, mask)
        else:
            output = self._by_kernel(query, slots, mask)
        return self._ungrouped(output, *inputs.shape)

    def _normed(self, query_key: Tensor) -> Tensor:
        assert self.query_key_norm is not None
        query_norm, key_norm = self.query_key_norm
        return torch.cat(
            [query_norm(query_key[:, : self.num_heads]), key_norm(query_key[:, self.num_heads :])], dim=1
        )

    def _grouped(self, query: Tensor, rows: int, tokens: int) -> Tensor:
        """Return queries `[rows * kv_heads, group * tokens, head_dim]`."""
        if tokens == 1:
            return query.reshape(rows * self.num_kv_heads, self.group, -1)
        split = query.reshape(rows, tokens, self.num_kv_heads, self.group, -1)
        return split.permute(0, 2, 3, 1, 4).reshape(rows * self.num_kv_heads, self.group * tokens, -1)

    def _ungrouped(self, output: Tensor, rows: int, tokens: int) -> Tensor:
        if tokens == 1:
            return output.view(rows, -1)
        split = output.view(rows, self.num_kv_heads, self.group, tokens, -1)
        return split.permute(0, 3, 1, 2, 4).reshape(rows * tokens, -1)

    def _by_kernel(self, query: Tensor, slots: SlotLayer, mask: Tensor) -> Tensor:
        keys, values = slots.readable
        rows, heads = keys.shape[:2]
        output: Tensor = functional.scaled_dot_product_attention(
            query.view(rows, heads, *query.shape[1:]),
            keys,
            values,
            attn_mask=mask.view(rows, heads, *mask.shape[1:]),
            scale=self.scale,
        )
        return output

    def _by_products(self, query: Tensor, slots: SlotLayer, mask: Tensor) -> Tensor:
        keys, values = slots.flat_readable
        if self.softcap is None:
            scores = torch.baddbmm(mask, query, keys, alpha=self.scale)
        else:
            scores = torch.bmm(query, keys).mul_(self.scale / self.softcap)
            scores = torch.add(mask, scores.tanh_(), alpha=self.softcap)
        weights = scores.softmax(-1)
        return torch.bmm(weights, values)


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """The norms before attention and feed-forward, and those after them."""

    attention: RMSNorm
    attention_out: RMSNorm | None
    feed_forward: RMSNorm
    feed_forward_out: RMSNorm | None


@dataclass(frozen=True, kw_only=True)
class FusedLayer:
    """x + attention(norm(x)), then x + feed_forward(norm(x)); gemma also norms what is added."""

    norms: LayerNorms
    attention: FusedAttention
    feed_forward: FeedForward

    def __call__(self, x: Tensor, inputs: Inputs, slots: SlotLayer) -> Tensor:
        norms = self.norms
        attended = self.attention(norms.attention(x), inputs, slots)
        if norms.attention_out is None:
            x = self.attention.out.plus(attended, x)
        else:
            x = x + norms.attention_out(self.attention.out(attended))
        normed = norms.feed_forward(x)
        if norms.feed_forward_out is None:
            return self.feed_forward.plus(normed, x)
        return x + norms.feed_forward_out(self.feed_forward(normed))


@dataclass(frozen=True, kw_only=True, repr=False)
class FusedDecoder:
    """A forward pass over slots; worker threads share it, as it holds only weights."""

    embed: Callable[[Tensor], Tensor]
    rotaries: Mapping[str, Rotary]  # by layer kind
    layers: Sequence[FusedLayer]
    norm: RMSNorm
    head: Linear
    softcap: float | None  # of the logits
    dtype: torch.dtype  # of inputs, keys and values
    is_padded: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<FusedDecoder {len(self.layers)} layers>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Return logits `[rows, num_last, vocab]` for ids and positions `[rows, tokens]`."""
        rows, tokens = ids.shape
        # Additive, because each layer would convert a boolean mask again.
        masks = mask.build(positions, cache.key_len, is_additive=True)
        inputs = Inputs(
            shape=(rows, tokens),
            write_index=cache.write_index,
            angles={kind: rotary.at(positions.flatten()) for kind, rotary in self.rotaries.items()},
            masks={kind: self._grouped_mask(it) for kind, it in masks.items()},
            uses_products=tokens <= MAX_TOKENS_FOR_PRODUCTS and ids.device.type == "cpu",
        )
        x = self.embed(ids).flatten(0, 1)
        for layer, slots in zip(self.layers, cache.slot_layers, strict=True):
            x = layer(x, inputs, slots)
        last = x.view(rows, tokens, -1)[:, tokens - num_last :]
        logits = self.head(self.norm(last))
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def _grouped_mask(self, mask: Tensor) -> Tensor:
        """Expand a mask `[rows, 1, tokens, key_len]` to the grouped queries of every KV head."""
        attention, (rows, _, tokens, key_len) = self.layers[0].attention, mask.shape
        if tokens > 1:
            mask = mask.tile(attention.group, 1)
        grouped = mask.expand(rows, attention.num_kv_heads, attention.group * tokens, key_len)
        return grouped.flatten(0, 1)
