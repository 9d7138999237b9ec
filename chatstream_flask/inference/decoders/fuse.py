"""fuse: a FusedDecoder over the weights of a transformers model, for those that are built like llama."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..attention_mask import layer_windows
from ..logits_check import FAULTS, NUM_TOKENS, shown_error
from .fused_decoder import FusedAttention, FusedDecoder, FusedLayer, LayerNorms
from .fused_layers import FeedForward, RMSNorm, Rotary, gelu_tanh
from .linear import Linear, PackedLinear, PlainLinear, PrepackedLinear
from .onednn import is_hooked, is_plain, packed

# Those whose forward was read and is compared with `generate` in the tests. All others keep their own.
FUSIBLE = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "smollm3"})
PROBE = (-3.0, -1.0, -0.25, 0.5, 2.0)


class NotFusible(Exception):
    """The model is served by its own forward; says why."""


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """What is taken from a model's modules as it is."""

    decoder: Any
    kinds: list[str]  # of the layers
    rotaries: dict[str, Rotary]
    layer_norms: list[LayerNorms]
    query_key_norms: list[tuple[RMSNorm, RMSNorm] | None]
    norm: RMSNorm
    activation: Callable[[Tensor], Tensor]


@torch.no_grad()
def fuse(model: Any, context_len: int, *, packs: bool) -> FusedDecoder:
    """Rearranges the weights in place: the model keeps working, and no weight is in memory twice.

    :param packs: lay the weights out for oneDNN, on CPU; else those of one product lie one after the other
    :raises NotFusible: before anything was changed
    """
    try:
        read = _read(model, context_len)
    except FAULTS as error:
        raise NotFusible(f"it is built otherwise: {shown_error(error)}") from error
    config, modules = read.decoder.config, read.decoder.layers
    windows = layer_windows(config)
    packs = packs or isinstance(modules[0].mlp.down_proj, PackedLinear)  # was packed before
    layers = [
        FusedLayer(
            norms=layer_norms,
            attention=FusedAttention(
                qkv=_merged(layer.self_attn, ("q_proj", "k_proj", "v_proj"), packs),
                out=_single(layer.self_attn, "o_proj", packs),
                num_heads=config.num_attention_heads,
                num_key_heads=config.num_key_value_heads,
                scale=layer.self_attn.scaling,
                kind=kind,
                window=windows[kind],
                rotary=read.rotaries[kind] if getattr(layer.self_attn, "use_rope", True) else None,
                query_key_norm=query_key_norm,
                softcap=getattr(config, "attn_logit_softcapping", None),
            ),
            feed_forward=FeedForward(
                _merged(layer.mlp, ("gate_proj", "up_proj"), packs),
                _single(layer.mlp, "down_proj", packs),
                read.activation,
            ),
        )
        for layer, kind, layer_norms, query_key_norm in zip(
            modules, read.kinds, read.layer_norms, read.query_key_norms, strict=True
        )
    ]
    return FusedDecoder(
        embed=read.decoder.embed_tokens,
        rotaries=read.rotaries,
        layers=layers,
        norm=read.norm,
        head=_head(model, read.decoder, packs),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def _read(model: Any, context_len: int) -> ModelParts:
    decoder = model.get_decoder()
    config = decoder.config
    _check(model, config.model_type)
    kinds = _layer_kinds(config)
    return ModelParts(
        decoder=decoder,
        kinds=kinds,
        rotaries={kind: _rotary(decoder, config, kind, context_len) for kind in sorted(set(kinds))},
        layer_norms=[_layer_norms(layer) for layer in decoder.layers],
        query_key_norms=[_query_key_norm(layer.self_attn) for layer in decoder.layers],
        norm=_norm(decoder.norm),
        activation=_activation(decoder.layers[0].mlp),
    )


def _check(model: nn.Module, kind: str) -> None:
    if kind not in FUSIBLE:
        raise NotFusible(f"{kind} is served by its own forward")
    for name, module in model.named_modules():
        if is_hooked(module):
            raise NotFusible(f"{name or kind} has a hook, or a forward of its own")
        if name.endswith("_proj") and not (is_plain(module) or isinstance(module, PackedLinear)):
            raise NotFusible(f"{name} is a {type(module).__name__} with weights of its own kind")


def _layer_kinds(config: Any) -> list[str]:
    kinds = getattr(config, "layer_types", None)
    return list(kinds) if kinds is not None else list(layer_windows(config)) * config.num_hidden_layers


def _rotary(decoder: Any, config: Any, kind: str, context_len: int) -> Rotary:
    weight = decoder.embed_tokens.weight
    positions = torch.arange(max(context_len, NUM_TOKENS), device=weight.device)[None]
    has_kinds = isinstance(next(iter(config.rope_parameters.values())), dict)
    cos, sin = decoder.rotary_emb(weight[:1], positions, *([kind] if has_kinds else []))
    head_dim = decoder.layers[0].self_attn.head_dim
    if cos.shape[-1] != head_dim:
        raise NotFusible(f"only {cos.shape[-1]} of {head_dim} dimensions are rotated")
    return Rotary(cos[0], sin[0])


# -- norms and activations: what a module does is tried out, as its name does not tell ---------------------


def _layer_norms(layer: Any) -> LayerNorms:
    """Gemma 2 and later norm before and after; others only before, and name it otherwise."""
    first, second = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
    if not hasattr(layer, "pre_feedforward_layernorm"):
        return LayerNorms(attention=first, attention_out=None, feed_forward=second, feed_forward_out=None)
    return LayerNorms(
        attention=first,
        attention_out=second,
        feed_forward=_norm(layer.pre_feedforward_layernorm),
        feed_forward_out=_norm(layer.post_feedforward_layernorm),
    )


def _query_key_norm(attention: Any) -> tuple[RMSNorm, RMSNorm] | None:
    if not hasattr(attention, "q_norm"):
        return None
    return _norm(attention.q_norm), _norm(attention.k_norm)


def _norm(module: Any) -> RMSNorm:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float):
        raise NotFusible(f"{type(module).__name__} names no epsilon")
    weight = module.weight.detach()
    offset = 1.0 + weight.float()  # gemma's, which computes in float32
    x = torch.linspace(-2, 2, weight.shape[0], device=weight.device).to(weight.dtype)
    for norm in (RMSNorm(weight, eps), RMSNorm(offset, eps)):
        if _is_close(norm(x), module(x)):
            return norm
    raise NotFusible(f"{type(module).__name__} is no RMS norm that is known here")


def _activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    """One that makes a new tensor, and does it in one operation."""
    x = torch.tensor(PROBE)
    expected = mlp.act_fn(x)
    for activation in (functional.silu, gelu_tanh, functional.gelu):
        if torch.allclose(activation(x), expected, rtol=1e-6, atol=1e-6):
            return activation
    raise NotFusible(f"its activation {mlp.act_fn!r} is not known here")


def _is_close(one: Tensor, other: Tensor) -> bool:
    tolerance = 16 * torch.finfo(other.dtype).eps
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


# -- products ------------------------------------------------------------------------------------------


def _merged(parent: Any, names: Sequence[str], packs: bool) -> Linear:
    """One product for several linear layers, which become parts of it."""
    modules = [getattr(parent, name) for name in names]
    if isinstance(modules[0], PackedLinear):
        return modules[0].whole
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    bias = torch.cat(biases) if biases else None
    sizes = [module.out_features for module in modules]
    if not packs:
        for module, part in zip(modules, torch.split(weight, sizes), strict=True):
            module.weight.data = part
        return PlainLinear(weight, bias)
    whole, start = PrepackedLinear.of(weight, bias), 0
    for name, size in zip(names, sizes, strict=True):
        setattr(parent, name, PackedLinear(whole, start, start + size))
        start += size
    return whole


def _single(parent: Any, name: str, packs: bool) -> Linear:
    module = getattr(parent, name)
    return packed(parent, name) if packs else PlainLinear(module.weight.detach(), _detached(module.bias))


def _head(model: Any, decoder: Any, packs: bool) -> Linear:
    if packs and model.lm_head.weight is decoder.embed_tokens.weight:
        return packed(model, "lm_head", shares=True)
    return _single(model, "lm_head", packs)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()
