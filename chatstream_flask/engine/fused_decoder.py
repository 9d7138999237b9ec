"""FusedDecoder: the forward of a llama-like model in few operations, which is most of a small step's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .fused_parts import FeedForward, RMSNorm, Rotary
from .kv_cache import SlotCache, SlotLayer
from .linear import Linear

Masks = Mapping[str, Tensor]  # by layer kind


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What all layers share of one forward, by layer kind where that matters."""

    place: tuple[Tensor, Tensor]  # slot and column of each token, `[rows, 1]` and `[rows, tokens]`
    angles: Mapping[str, tuple[Tensor, Tensor]]
    masks: Masks  # `[rows, 1, group * tokens, key_len]`


@dataclass(frozen=True, kw_only=True)
class FusedAttention:
    """Query, key and value as one product; grouped queries (arXiv 2305.13245) as rows of one attention."""

    qkv: Linear
    out: Linear
    num_heads: int
    num_key_heads: int
    scale: float
    kind: str  # of its mask and angles
    rotary: Rotary | None
    query_key_norm: tuple[RMSNorm, RMSNorm] | None
    softcap: float | None

    @property
    def group(self) -> int:
        return self.num_heads // self.num_key_heads

    def __call__(self, x: Tensor, inputs: Inputs, slots: SlotLayer) -> Tensor:
        """What `out` is to be given, `[rows * tokens, heads * head_dim]`, for x `[rows * tokens, hidden]`."""
        rows, tokens = inputs.place[1].shape
        num_query_key = self.num_heads + self.num_key_heads
        heads = self.qkv(x).view(rows * tokens, num_query_key + self.num_key_heads, -1)
        query_key, value = heads[:, :num_query_key], heads[:, num_query_key:]
        if self.query_key_norm is not None:
            query_key = self._normed(query_key)
        if self.rotary is not None:
            query_key = self.rotary.turned(query_key, inputs.angles[self.kind])
        query, key = query_key[:, : self.num_heads], query_key[:, self.num_heads :]
        keys, values = slots.write(
            inputs.place,
            key.view(rows, tokens, *key.shape[1:]),
            value.view(rows, tokens, *value.shape[1:]),
        )
        seen = self._attend(self._grouped(query, rows, tokens), keys, values, inputs.masks[self.kind])
        return self._ungrouped(seen, tokens)

    def _normed(self, query_key: Tensor) -> Tensor:
        assert self.query_key_norm is not None
        query_norm, key_norm = self.query_key_norm
        query, key = query_key[:, : self.num_heads], query_key[:, self.num_heads :]
        return torch.cat([query_norm(query), key_norm(key)], dim=1)

    def _grouped(self, query: Tensor, rows: int, tokens: int) -> Tensor:
        """`[rows, key_heads, group * tokens, head_dim]`: a copy only where there are several tokens."""
        apart = query.reshape(rows, tokens, self.num_key_heads, self.group, -1)
        return apart.permute(0, 2, 3, 1, 4).flatten(2, 3)

    def _ungrouped(self, seen: Tensor, tokens: int) -> Tensor:
        rows = seen.shape[0]
        apart = seen.view(rows, self.num_key_heads, self.group, tokens, -1)
        return apart.permute(0, 3, 1, 2, 4).reshape(rows * tokens, -1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if self.softcap is None:
            seen: Tensor = functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=self.scale
            )
            return seen
        scores = torch.tanh(query @ keys.transpose(2, 3) * (self.scale / self.softcap)) * self.softcap
        weights = (scores + mask).softmax(-1, dtype=torch.float32)
        return weights.to(values.dtype) @ values


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Of what goes into attention and feed-forward, and of what comes out of them."""

    attention: RMSNorm
    attention_out: RMSNorm | None
    feed_forward: RMSNorm
    feed_forward_out: RMSNorm | None


@dataclass(frozen=True, kw_only=True)
class FusedLayer:
    """x + attention(norm(x)), then x + feed_forward(norm(x)); gemma norms also what is added."""

    norms: LayerNorms
    attention: FusedAttention
    feed_forward: FeedForward

    def __call__(self, x: Tensor, inputs: Inputs, slots: SlotLayer) -> Tensor:
        norms = self.norms
        seen = self.attention(norms.attention(x), inputs, slots)
        if norms.attention_out is None:
            x = self.attention.out.plus(seen, x)
        else:
            x = x + norms.attention_out(self.attention.out(seen))
        normed = norms.feed_forward(x)
        if norms.feed_forward_out is None:
            return self.feed_forward.plus(normed, x)
        return x + norms.feed_forward_out(self.feed_forward(normed))


@dataclass(frozen=True, kw_only=True, repr=False)
class FusedDecoder:
    """A forward over slots; shared by the generation threads, as it holds only weights."""

    embed: Callable[[Tensor], Tensor]
    rotaries: Mapping[str, Rotary]  # by layer kind
    layers: Sequence[FusedLayer]
    norm: RMSNorm
    head: Linear
    softcap: float | None  # of the logits

    def __repr__(self) -> str:
        return f"<FusedDecoder {len(self.layers)} layers>"

    @property
    def adds_mask(self) -> bool:
        """Masks are numbers to be added, not booleans."""
        return any(layer.attention.softcap is not None for layer in self.layers)

    def __call__(
        self, ids: Tensor, positions: Tensor, masks: Masks, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Logits `[rows, num_last, vocab]` for ids and positions `[rows, tokens]`."""
        rows, tokens = ids.shape
        group = self.layers[0].attention.group
        inputs = Inputs(
            place=cache.place,
            angles={kind: rotary.at(positions.flatten()) for kind, rotary in self.rotaries.items()},
            masks={kind: mask if tokens == 1 else mask.tile(group, 1) for kind, mask in masks.items()},
        )
        x = self.embed(ids).flatten(0, 1)
        for layer, slots in zip(self.layers, cache.slot_layers, strict=True):
            x = layer(x, inputs, slots)
        last = x.view(rows, tokens, -1)[:, tokens - num_last :]
        logits = self.head(self.norm(last))
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap
