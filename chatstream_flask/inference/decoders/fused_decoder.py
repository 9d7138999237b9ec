"""FusedDecoder: the forward of a llama-like model in few operations, which is most of a small step's time."""

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

FEW = 4  # tokens of a row


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What all layers share of one forward, by layer kind where that matters."""

    shape: tuple[int, int]  # rows and tokens of each
    place: tuple[Tensor, Tensor]  # slot and column of each token, `[rows * tokens]`
    angles: Mapping[str, tuple[Tensor, Tensor]]
    masks: Mapping[str, Tensor]  # `[rows * key_heads, group * tokens, key_len]`
    is_small: bool  # attention is two plain products, which is faster at a few tokens on CPU


@dataclass(frozen=True, kw_only=True)
class FusedAttention:
    """Query, key and value as one product; grouped queries (arXiv 2305.13245) as rows of one attention."""

    qkv: Linear
    out: Linear
    num_heads: int
    num_key_heads: int
    scale: float
    kind: str  # of its mask and angles
    window: int | None  # keys a token looks at, which its mask says too
    rotary: Rotary | None
    query_key_norm: tuple[RMSNorm, RMSNorm] | None
    softcap: float | None

    @property
    def group(self) -> int:
        return self.num_heads // self.num_key_heads

    def __call__(self, x: Tensor, inputs: Inputs, slots: SlotLayer) -> Tensor:
        """What `out` is to be given, `[rows * tokens, heads * head_dim]`, for x `[rows * tokens, hidden]`."""
        num_heads, num_key_heads = self.num_heads, self.num_key_heads
        num_turned = num_heads + num_key_heads
        heads = self.qkv(x).view(x.shape[0], num_turned + num_key_heads, -1)
        turned = heads[:, :num_turned]
        if self.query_key_norm is not None:
            turned = self._normed(turned)
        if self.rotary is not None:
            turned = self.rotary.turned(turned, inputs.angles[self.kind])
        slots.write(inputs.place, turned[:, num_heads:], heads[:, num_turned:])
        query = self._grouped(turned[:, :num_heads], *inputs.shape)
        mask = inputs.masks[self.kind]
        if inputs.is_small or self.softcap is not None:
            seen = self._by_products(query, slots, mask)
        else:
            seen = self._by_kernel(query, slots, mask)
        return self._ungrouped(seen, *inputs.shape)

    def _normed(self, turned: Tensor) -> Tensor:
        assert self.query_key_norm is not None
        query_norm, key_norm = self.query_key_norm
        return torch.cat(
            [query_norm(turned[:, : self.num_heads]), key_norm(turned[:, self.num_heads :])], dim=1
        )

    def _grouped(self, query: Tensor, rows: int, tokens: int) -> Tensor:
        """`[rows * key_heads, group * tokens, head_dim]`"""
        if tokens == 1:
            return query.reshape(rows * self.num_key_heads, self.group, -1)
        apart = query.reshape(rows, tokens, self.num_key_heads, self.group, -1)
        return apart.permute(0, 2, 3, 1, 4).reshape(rows * self.num_key_heads, self.group * tokens, -1)

    def _ungrouped(self, seen: Tensor, rows: int, tokens: int) -> Tensor:
        if tokens == 1:
            return seen.view(rows, -1)
        apart = seen.view(rows, self.num_key_heads, self.group, tokens, -1)
        return apart.permute(0, 3, 1, 2, 4).reshape(rows * tokens, -1)

    def _by_kernel(self, query: Tensor, slots: SlotLayer, mask: Tensor) -> Tensor:
        keys, values = slots.readable
        rows, heads = keys.shape[:2]
        seen: Tensor = functional.scaled_dot_product_attention(
            query.view(rows, heads, *query.shape[1:]),
            keys,
            values,
            attn_mask=mask.view(rows, heads, *mask.shape[1:]),
            scale=self.scale,
        )
        return seen

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
    is_padded: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<FusedDecoder {len(self.layers)} layers>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        """Logits `[rows, num_last, vocab]` for ids and positions `[rows, tokens]`."""
        rows, tokens = ids.shape
        masks = mask.build(positions, cache.key_len, as_numbers=True)  # else each layer makes them anew
        inputs = Inputs(
            shape=(rows, tokens),
            place=cache.place,
            angles={kind: rotary.at(positions.flatten()) for kind, rotary in self.rotaries.items()},
            masks={kind: self._spread(it) for kind, it in masks.items()},
            is_small=tokens <= FEW and ids.device.type == "cpu",
        )
        x = self.embed(ids).flatten(0, 1)
        for layer, slots in zip(self.layers, cache.slot_layers, strict=True):
            x = layer(x, inputs, slots)
        last = x.view(rows, tokens, -1)[:, tokens - num_last :]
        logits = self.head(self.norm(last))
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def _spread(self, mask: Tensor) -> Tensor:
        """From `[rows, 1, tokens, key_len]` to every group of queries."""
        attention, (rows, _, tokens, key_len) = self.layers[0].attention, mask.shape
        if tokens > 1:
            mask = mask.tile(attention.group, 1)
        whole = mask.expand(rows, attention.num_key_heads, attention.group * tokens, key_len)
        return whole.flatten(0, 1)
