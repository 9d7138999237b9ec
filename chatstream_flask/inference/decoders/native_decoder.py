"""NativeDecoder: a FusedDecoder's forward as one call of compiled code, for the tokens of a step on CPU."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from functools import cache
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from ..attention_mask import AttentionMask
from ..kv_cache import SlotCache
from ..slot_model import TokenBatch
from .fused_decoder import FusedDecoder, FusedLayer
from .fused_layers import RMSNorm, gelu_tanh
from .linear import Linear, PlainLinear, has_products_of

MAX_TOKENS = 128  # of one forward: at more torch is faster, where the processor has products of bfloat16
LANES = 8  # numbers that are computed together: all sizes must be multiples
ACTIVATIONS: dict[Any, int] = {functional.silu: 0, gelu_tanh: 1}
DTYPES = (torch.float32, torch.bfloat16)


class NotNative(Exception):
    """This decoder cannot be computed by the compiled code; says why."""


class _Layer(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("attention_norm", "attention_out_norm")),
        *((name, c_void_p) for name in ("feed_forward_norm", "feed_forward_out_norm")),
        *((name, c_void_p) for name in ("query_norm", "key_norm")),
        *((name, c_void_p) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("qkv_bias", "out_bias", "gate_up_bias", "down_bias")),
        *((name, c_void_p) for name in ("cos", "sin")),
        ("window", c_int64),
    ]


class _Decoder(Structure):
    _fields_ = [
        ("layers", POINTER(_Layer)),
        *((name, c_void_p) for name in ("norm", "head", "head_bias")),
        *((name, c_int64) for name in ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim")),
        *((name, c_int64) for name in ("intermediate_size", "vocab_size", "activation", "is_bf16")),
        *((name, c_float) for name in ("eps", "scale", "softcap", "logit_softcap")),
    ]


class _LayerCache(Structure):
    _fields_ = [("keys", c_void_p), ("values", c_void_p)]


class _Step(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("num_tokens", "num_logits", "slot_len")),
        *((name, c_void_p) for name in ("slots", "positions", "cache_positions", "logits_indices")),
        *((name, c_void_p) for name in ("embeddings", "logits", "work")),
        ("num_threads", c_int64),
    ]


@cache
def native_library() -> Any:
    """None where it was not built."""
    spec = find_spec("chatstream_flask.inference.decoders.native._decoder")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.work_size.restype = c_int64
    return library


class Workspace:
    """What the compiled code needs of one thread: where its keys and values are, and memory to work in."""

    def __init__(self, cache: SlotCache) -> None:
        layers = cache.slot_layers
        self.slots = (_LayerCache * len(layers))(
            *(_LayerCache(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in layers)
        )
        self.work = torch.empty(0)

    def sized(self, num_numbers: int) -> int:
        """The address of so many numbers at least."""
        if self.work.numel() < num_numbers:
            self.work = torch.empty(num_numbers)
        return self.work.data_ptr()


class NativeDecoder:
    """Shared by the generation threads, as it holds only addresses of weights."""

    is_padded = False
    tile_tokens = None

    def __init__(self, fused: FusedDecoder) -> None:
        """:raises NotNative: it was not built, or is not made for this decoder"""
        self._library = native_library()
        if self._library is None:
            raise NotNative("it was not built when the package was installed")
        self._fused = fused
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # by the first one's id
        self._rooms: WeakKeyDictionary[SlotCache, Workspace] = WeakKeyDictionary()
        first = fused.layers[0]
        self._eps = fused.norm.eps
        self._dtype = _plain(fused.head).weight.dtype
        if self._dtype not in DTYPES:
            raise NotNative(f"it has no {self._dtype}")
        has_better = self._dtype == torch.bfloat16 and has_products_of(self._dtype)
        self.most_tokens = MAX_TOKENS if has_better else sys.maxsize
        if first.feed_forward.activation not in ACTIVATIONS:
            raise NotNative("its activation is not there")
        attention = first.attention
        hidden, head_dim = fused.norm.weight.shape[0], self._shape(attention.out)[1] // attention.num_heads
        inner = self._shape(first.feed_forward.down)[1]
        if any(size % LANES for size in (hidden, head_dim, inner)):
            raise NotNative(f"{hidden}, {head_dim} and {inner} are not all multiples of {LANES}")
        self._hidden = hidden
        self._layers = (_Layer * len(fused.layers))(*map(self._layer, fused.layers))
        self._decoder = _Decoder(
            layers=self._layers,
            norm=self._norm(fused.norm),
            head=self._weight(fused.head),
            head_bias=self._bias(fused.head),
            num_layers=len(fused.layers),
            hidden_size=hidden,
            num_heads=attention.num_heads,
            num_kv_heads=attention.num_key_heads,
            head_dim=head_dim,
            intermediate_size=inner,
            vocab_size=self._shape(fused.head)[0],
            activation=ACTIVATIONS[first.feed_forward.activation],
            is_bf16=self._dtype == torch.bfloat16,
            eps=self._eps,
            scale=attention.scale,
            softcap=attention.softcap or 0.0,
            logit_softcap=fused.softcap or 0.0,
        )

    def __repr__(self) -> str:
        return f"<NativeDecoder {len(self._layers)} layers>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        if ids.numel() > self.most_tokens:
            return self._fused(ids, positions, mask, cache, num_last)
        return self.packed(TokenBatch.of_rows(ids, positions, cache, num_last), cache).view(
            len(ids), num_last, -1
        )

    def packed(self, tokens: TokenBatch, cache: SlotCache) -> Tensor:
        room = self._rooms.get(cache)
        if room is None:
            room = self._rooms[cache] = Workspace(cache)
        embedded = self._fused.embed(tokens.ids).float().contiguous()
        numbers = [it.contiguous() for it in (tokens.rows, tokens.positions, tokens.columns, tokens.lasts)]
        slots, positions, columns, lasts = (it.data_ptr() for it in numbers)
        logits = torch.empty(len(tokens.lasts), self._decoder.vocab_size)
        step = _Step(
            num_tokens=len(tokens.ids),
            num_logits=len(tokens.lasts),
            slot_len=cache.max_len + 1,
            slots=slots,
            positions=positions,
            cache_positions=columns,
            logits_indices=lasts,
            embeddings=embedded.data_ptr(),
            logits=logits.data_ptr(),
            num_threads=torch.get_num_threads(),
        )
        step.work = room.sized(self._library.work_size(byref(self._decoder), byref(step)))
        self._library.forward(byref(self._decoder), room.slots, byref(step))
        return logits

    def _layer(self, layer: FusedLayer) -> _Layer:
        norms, attention, feed_forward = layer.norms, layer.attention, layer.feed_forward
        query_norm, key_norm = attention.query_key_norm or (None, None)
        rotary = attention.rotary
        return _Layer(
            attention_norm=self._norm(norms.attention),
            attention_out_norm=self._norm(norms.attention_out),
            feed_forward_norm=self._norm(norms.feed_forward),
            feed_forward_out_norm=self._norm(norms.feed_forward_out),
            query_norm=self._norm(query_norm),
            key_norm=self._norm(key_norm),
            qkv=self._weight(attention.qkv),
            out=self._weight(attention.out),
            gate_up=self._weight(feed_forward.gate_up),
            down=self._weight(feed_forward.down),
            qkv_bias=self._bias(attention.qkv),
            out_bias=self._bias(attention.out),
            gate_up_bias=self._bias(feed_forward.gate_up),
            down_bias=self._bias(feed_forward.down),
            cos=None if rotary is None else self._numbers(rotary.cos),
            sin=None if rotary is None else self._numbers(rotary.sin),
            window=attention.window or 0,
        )

    def _norm(self, norm: RMSNorm | None) -> int | None:
        if norm is None:
            return None
        if norm.eps != self._eps:
            raise NotNative("its norms differ in epsilon")
        return self._numbers(norm.weight)

    def _bias(self, linear: Linear) -> int | None:
        bias = _plain(linear).bias
        return None if bias is None else self._numbers(bias)

    def _weight(self, linear: Linear) -> int:
        weight = _plain(linear).weight
        if weight.dtype != self._dtype or not weight.is_contiguous():
            raise NotNative("its weights are not all of one kind")
        return weight.data_ptr()

    def _shape(self, linear: Linear) -> torch.Size:
        return _plain(linear).weight.shape

    def _numbers(self, tensor: Tensor) -> int:
        """The address of float32 numbers that stay as long as this object."""
        if id(tensor) not in self._kept:
            self._kept[id(tensor)] = tensor, tensor.float().contiguous()
        return self._kept[id(tensor)][1].data_ptr()


def _plain(linear: Linear) -> PlainLinear:
    if not isinstance(linear, PlainLinear):
        raise NotNative("its weights are packed for oneDNN")
    return linear
