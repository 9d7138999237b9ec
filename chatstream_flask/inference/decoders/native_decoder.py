"""NativeDecoder: a FusedDecoder's forward pass as one call of compiled code, on CPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
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
from .linear import Linear, PlainLinear, has_fast_matmul
from .native_library import native_library
from .packed import BLOCK, PackedProduct, Weight

MAX_TOKENS = 128  # of one forward pass; for more, torch is faster if the processor has bfloat16 products
LANES = 8  # numbers that are computed together; sizes must be multiples of it
ACTIVATIONS: dict[Any, int] = {functional.silu: 0, gelu_tanh: 1}


class NotNative(Exception):
    """The compiled decoder does not support this model; the text is the reason."""


# -- the structs of native/interface.h ------------------------------------------------------------------


FORMATS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}  # of matrices, numbered as in GGUF files
NATIVE_DTYPES = tuple(FORMATS)


class _Layer(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("attention_norm", "attention_out_norm")),
        *((name, c_void_p) for name in ("feed_forward_norm", "feed_forward_out_norm")),
        *((name, c_void_p) for name in ("query_norm", "key_norm")),
        *((name, Weight) for name in ("q", "k", "v", "out", "gate", "up", "down")),
        *((name, c_void_p) for name in ("qkv_bias", "out_bias", "gate_up_bias", "down_bias")),
        *((name, c_void_p) for name in ("cos", "sin")),
        ("window", c_int64),
    ]


class _Decoder(Structure):
    _fields_ = [
        ("layers", POINTER(_Layer)),
        ("norm", c_void_p),
        ("head", Weight),
        ("head_bias", c_void_p),
        *((name, c_int64) for name in ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim")),
        *((name, c_int64) for name in ("intermediate_size", "vocab_size", "activation", "format")),
        *((name, c_int64) for name in ("has_plain", "has_packed")),
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


class Workspace:
    """What the compiled code needs for one KV cache: the addresses of its layers, and working memory."""

    def __init__(self, cache: SlotCache) -> None:
        layers = cache.slot_layers
        self.slots = (_LayerCache * len(layers))(
            *(_LayerCache(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in layers)
        )
        self._memory = torch.empty(0)

    def address(self, size: int) -> int:
        """Return the address of at least `size` float32 numbers."""
        if self._memory.numel() < size:
            self._memory = torch.empty(size)
        return self._memory.data_ptr()


class NativeDecoder:
    """A forward pass over slots; worker threads share it, as it holds only addresses of weights."""

    is_padded = False
    tile_tokens = None

    def __init__(self, fused: FusedDecoder) -> None:
        """Bind a decoder to the compiled library.

        :raises NotNative: the library was not built, or does not support this decoder
        """
        self._library = native_library()
        if self._library is None:
            raise NotNative("it was not built when the package was installed")
        self._fused = fused
        self._converted: dict[int, tuple[Tensor, Tensor]] = {}  # id of a tensor -> it and its float32 copy
        self._workspaces: WeakKeyDictionary[SlotCache, Workspace] = WeakKeyDictionary()
        first = fused.layers[0]
        self._eps = fused.norm.eps
        self._dtype = fused.dtype
        if self._dtype not in NATIVE_DTYPES:
            raise NotNative(f"it does not support {self._dtype}")
        self._num_plain = self._num_packed = 0  # matrices
        activation = first.feed_forward.activation
        if activation not in ACTIVATIONS:
            name = getattr(activation, "__name__", activation)
            raise NotNative(f"it does not support the activation {name}")
        attention = first.attention
        hidden_size = fused.norm.weight.shape[0]
        self._head_dim = head_dim = _shape(attention.out)[1] // attention.num_heads
        self._intermediate_size = intermediate_size = _shape(first.feed_forward.down)[1]
        if any(size % LANES for size in (hidden_size, head_dim, intermediate_size)):
            raise NotNative(
                f"hidden_size {hidden_size}, head_dim {head_dim} and intermediate_size {intermediate_size} "
                f"are not all multiples of {LANES}"
            )
        if _shape(fused.head)[0] < LANES:
            raise NotNative(f"its vocabulary has fewer than {LANES} tokens")
        self._layers = (_Layer * len(fused.layers))(*map(self._layer, fused.layers))
        self._decoder = _Decoder(
            layers=self._layers,
            norm=self._norm(fused.norm),
            head=self._weights(fused.head)[0],
            head_bias=self._bias(fused.head),
            num_layers=len(fused.layers),
            hidden_size=hidden_size,
            num_heads=attention.num_heads,
            num_kv_heads=attention.num_kv_heads,
            head_dim=head_dim,
            intermediate_size=intermediate_size,
            vocab_size=_shape(fused.head)[0],
            activation=ACTIVATIONS[activation],
            format=FORMATS[self._dtype],
            has_plain=self._num_plain > 0,
            has_packed=self._num_packed > 0,
            eps=self._eps,
            scale=attention.scale,
            softcap=attention.softcap or 0.0,
            logit_softcap=fused.softcap or 0.0,
        )
        torch_is_faster = self._dtype == torch.bfloat16 and has_fast_matmul(self._dtype)
        self.max_tokens = MAX_TOKENS if torch_is_faster and not self._num_packed else sys.maxsize

    def __repr__(self) -> str:
        return f"<NativeDecoder {len(self._layers)} layers>"

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: AttentionMask, cache: SlotCache, num_last: int = 1
    ) -> Tensor:
        if ids.numel() > self.max_tokens:
            return self._fused(ids, positions, mask, cache, num_last)
        batch = TokenBatch.of_rows(ids, positions, cache, num_last)
        return self.forward_batch(batch, cache).view(len(ids), num_last, -1)

    def forward_batch(self, batch: TokenBatch, cache: SlotCache) -> Tensor:
        workspace = self._workspaces.get(cache)
        if workspace is None:
            workspace = self._workspaces[cache] = Workspace(cache)
        embeddings = self._fused.embed(batch.ids).float().contiguous()
        indices = (batch.rows, batch.positions, batch.cache_positions, batch.logits_indices)
        contiguous = [tensor.contiguous() for tensor in indices]  # referenced until the call returns
        slots, positions, cache_positions, logits_indices = (tensor.data_ptr() for tensor in contiguous)
        logits = torch.empty(len(batch.logits_indices), self._decoder.vocab_size)
        step = _Step(
            num_tokens=len(batch.ids),
            num_logits=len(batch.logits_indices),
            slot_len=cache.max_len + 1,
            slots=slots,
            positions=positions,
            cache_positions=cache_positions,
            logits_indices=logits_indices,
            embeddings=embeddings.data_ptr(),
            logits=logits.data_ptr(),
            num_threads=torch.get_num_threads(),
        )
        step.work = workspace.address(self._library.work_size(byref(self._decoder), byref(step)))
        self._library.forward(byref(self._decoder), workspace.slots, byref(step))
        return logits

    def _layer(self, layer: FusedLayer) -> _Layer:
        norms, attention, feed_forward = layer.norms, layer.attention, layer.feed_forward
        query_norm, key_norm = attention.query_key_norm or (None, None)
        rotary = attention.rotary
        head_sizes = [heads * self._head_dim for heads in (attention.num_heads, attention.num_kv_heads)]
        query, key, value = self._weights(attention.qkv, [*head_sizes, head_sizes[1]])
        gate, up = self._weights(feed_forward.gate_up, [self._intermediate_size] * 2)
        return _Layer(
            attention_norm=self._norm(norms.attention),
            attention_out_norm=self._norm(norms.attention_out),
            feed_forward_norm=self._norm(norms.feed_forward),
            feed_forward_out_norm=self._norm(norms.feed_forward_out),
            query_norm=self._norm(query_norm),
            key_norm=self._norm(key_norm),
            q=query,
            k=key,
            v=value,
            out=self._weights(attention.out)[0],
            gate=gate,
            up=up,
            down=self._weights(feed_forward.down)[0],
            qkv_bias=self._bias(attention.qkv),
            out_bias=self._bias(attention.out),
            gate_up_bias=self._bias(feed_forward.gate_up),
            down_bias=self._bias(feed_forward.down),
            cos=None if rotary is None else self._float32(rotary.cos),
            sin=None if rotary is None else self._float32(rotary.sin),
            window=attention.window or 0,
        )

    def _norm(self, norm: RMSNorm | None) -> int | None:
        if norm is None:
            return None
        if norm.eps != self._eps:
            raise NotNative("its norms have different epsilons")
        return self._float32(norm.weight)

    def _bias(self, linear: Linear) -> int | None:
        bias = linear.bias if isinstance(linear, PackedProduct) else _plain(linear).bias
        return None if bias is None else self._float32(bias)

    def _weights(self, linear: Linear, sizes: Sequence[int] = ()) -> list[Weight]:
        """Return the matrices that were merged into one product, by their numbers of outputs."""
        if isinstance(linear, PackedProduct):
            if any(matrix.num_inputs % BLOCK for matrix in linear.matrices):
                raise NotNative(f"the inputs of its packed weights are not all multiples of {BLOCK}")
            self._num_packed += 1
            return [matrix.struct for matrix in linear.matrices]
        self._num_plain += 1
        weight = _plain(linear).weight
        if weight.dtype != self._dtype or not weight.is_contiguous():
            raise NotNative("its weights are not all contiguous and of the same dtype")
        parts = torch.split(weight, list(sizes) or len(weight))
        return [Weight(part.data_ptr(), FORMATS[part.dtype]) for part in parts]

    def _float32(self, tensor: Tensor) -> int:
        """Return the address of a float32 copy that lives as long as this object."""
        if id(tensor) not in self._converted:
            self._converted[id(tensor)] = tensor, tensor.float().contiguous()
        return self._converted[id(tensor)][1].data_ptr()


def _shape(linear: Linear) -> torch.Size:
    return linear.matrices[0].shape if isinstance(linear, PackedProduct) else _plain(linear).weight.shape


def _plain(linear: Linear) -> PlainLinear:
    if not isinstance(linear, PlainLinear):
        raise NotNative("its weights are prepacked for oneDNN")
    return linear
