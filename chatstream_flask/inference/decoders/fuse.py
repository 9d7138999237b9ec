"""fuse: build a FusedDecoder from the weights of a transformers model with an architecture like llama's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..attention_mask import layer_windows
from ..logits_check import FAULTS, NUM_TOKENS, shown_error
from . import onednn
from .fused_decoder import FusedAttention, FusedDecoder, FusedLayer, LayerNorms
from .fused_layers import FeedForward, RMSNorm, Rotary, gelu_tanh
from .linear import Linear, PlainLinear, PrepackedLinear, PrepackedModule
from .onednn import is_hooked, is_plain
from .packed import PackedLinear, PackedProduct

# Architectures whose source was read and whose replies are compared with `generate` in the tests. All other
# models keep their own forward pass.
FUSIBLE = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "smollm3"})
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")  # of one product each
PROBE = (-3.0, -1.0, -0.25, 0.5, 2.0)  # inputs that tell activations apart


class NotFusible(Exception):
    """This model cannot be fused, and is served by its own forward pass; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """The parts of a model that are used as they are."""

    decoder: Any
    kinds: list[str]  # kind of each layer
    rotaries: dict[str, Rotary]
    layer_norms: list[LayerNorms]
    query_key_norms: list[tuple[RMSNorm, RMSNorm] | None]
    norm: RMSNorm
    activation: Callable[[Tensor], Tensor]


@torch.no_grad()
def fuse(model: Any, context_len: int, *, prepack: bool) -> FusedDecoder:
    """Rearrange the weights in place and return a decoder over them.

    The model keeps working, and no weight is in memory twice.

    :param prepack: on CPU, lay the weights out for oneDNN; False: only store those of one product together
    :raises NotFusible: the model was not changed
    """
    try:
        parts = _parts(model, context_len)
    except FAULTS as error:
        raise NotFusible(f"its modules are not those of a llama-like model: {shown_error(error)}") from error
    config, modules = parts.decoder.config, parts.decoder.layers
    windows = layer_windows(config)
    prepack = prepack or isinstance(modules[0].mlp.down_proj, PrepackedModule)  # prepacked before
    layers = [
        FusedLayer(
            norms=layer_norms,
            attention=FusedAttention(
                qkv=_merged(layer.self_attn, QKV, prepack),
                out=_single(layer.self_attn, "o_proj", prepack),
                num_heads=config.num_attention_heads,
                num_kv_heads=config.num_key_value_heads,
                scale=layer.self_attn.scaling,
                kind=kind,
                window=windows[kind],
                rotary=parts.rotaries[kind] if getattr(layer.self_attn, "use_rope", True) else None,
                query_key_norm=query_key_norm,
                softcap=getattr(config, "attn_logit_softcapping", None),
            ),
            feed_forward=FeedForward(
                _merged(layer.mlp, GATE_UP, prepack),
                _single(layer.mlp, "down_proj", prepack),
                parts.activation,
            ),
        )
        for layer, kind, layer_norms, query_key_norm in zip(
            modules, parts.kinds, parts.layer_norms, parts.query_key_norms, strict=True
        )
    ]
    return FusedDecoder(
        embed=parts.decoder.embed_tokens,
        rotaries=parts.rotaries,
        layers=layers,
        norm=parts.norm,
        head=_head(model, parts.decoder, prepack),
        softcap=getattr(config, "final_logit_softcapping", None),
        dtype=model.dtype,
    )


def _parts(model: Any, context_len: int) -> ModelParts:
    decoder = model.get_decoder()
    config = decoder.config
    _check_modules(model, config.model_type)
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


def _check_modules(model: Any, kind: str) -> None:
    if kind not in FUSIBLE:
        raise NotFusible(f"the architecture {kind} is not supported")
    for name, module in model.named_modules():
        if is_hooked(module):
            raise NotFusible(f"{name or kind} has a hook, or a replaced forward method")
        if name.endswith("_proj") and not (
            is_plain(module) or isinstance(module, (PrepackedModule, PackedLinear))
        ):
            raise NotFusible(f"{name} is a {type(module).__name__}, not a plain linear layer")
    for layer in model.get_decoder().layers:
        for parent, names in ((layer.self_attn, QKV), (layer.mlp, GATE_UP)):
            if len({isinstance(getattr(parent, name), PackedLinear) for name in names}) > 1:
                raise NotFusible(f"of {', '.join(names)} some are packed and some are not")


def _layer_kinds(config: Any) -> list[str]:
    kinds = getattr(config, "layer_types", None)
    return list(kinds) if kinds is not None else list(layer_windows(config)) * config.num_hidden_layers


def _rotary(decoder: Any, config: Any, kind: str, context_len: int) -> Rotary:
    weight = decoder.norm.weight
    positions = torch.arange(max(context_len, NUM_TOKENS), device=weight.device)[None]
    has_kinds = isinstance(next(iter(config.rope_parameters.values())), dict)
    cos, sin = decoder.rotary_emb(weight[:1], positions, *([kind] if has_kinds else []))
    head_dim = decoder.layers[0].self_attn.head_dim
    if cos.shape[-1] != head_dim:
        raise NotFusible(f"its rotary embedding covers only {cos.shape[-1]} of {head_dim} dimensions")
    return Rotary(cos[0], sin[0])


# -- norms and activations: identified by their results, because their names do not tell ------------------


def _layer_norms(layer: Any) -> LayerNorms:
    """Return the norms of a layer.

    Gemma 2 and later have norms before and after; other models only before, under other names.
    """
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
        raise NotFusible(f"{type(module).__name__} has no epsilon")
    weight = module.weight.detach()
    offset = 1.0 + weight.float()  # as in gemma, which computes in float32
    x = torch.linspace(-2, 2, weight.shape[0], device=weight.device).to(weight.dtype)
    for norm in (RMSNorm(weight, eps), RMSNorm(offset, eps)):
        if _is_close(norm(x), module(x)):
            return norm
    raise NotFusible(f"{type(module).__name__} is not a supported RMS norm")


def _activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    """Return an equal function that is one operation and returns a new tensor."""
    x = torch.tensor(PROBE)
    expected = mlp.act_fn(x)
    for activation in (functional.silu, gelu_tanh, functional.gelu):
        if torch.allclose(activation(x), expected, rtol=1e-6, atol=1e-6):
            return activation
    raise NotFusible(f"the activation {mlp.act_fn!r} is not supported")


def _is_close(one: Tensor, other: Tensor) -> bool:
    tolerance = 16 * torch.finfo(other.dtype).eps
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


# -- linear layers -------------------------------------------------------------------------------------


def _merged(parent: Any, names: Sequence[str], prepack: bool) -> Linear:
    """Merge several linear layers into one product, of which they become slices."""
    modules = [getattr(parent, name) for name in names]
    if isinstance(modules[0], PrepackedModule):
        return modules[0].whole
    if any(isinstance(module, PackedLinear) for module in modules):
        return PackedProduct(modules)
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    bias = torch.cat(biases) if biases else None
    sizes = [module.out_features for module in modules]
    if not prepack:
        for module, part in zip(modules, torch.split(weight, sizes), strict=True):
            module.weight.data = part
        return PlainLinear(weight, bias)
    whole, start = PrepackedLinear.of(weight, bias), 0
    for name, size in zip(names, sizes, strict=True):
        setattr(parent, name, PrepackedModule(whole, start, start + size))
        start += size
    return whole


def _single(parent: Any, name: str, prepack: bool) -> Linear:
    module = getattr(parent, name)
    if isinstance(module, PackedLinear):
        return PackedProduct([module])
    if prepack:
        return onednn.prepack(parent, name)
    return PlainLinear(module.weight.detach(), None if module.bias is None else module.bias.detach())


def _head(model: Any, decoder: Any, prepack: bool) -> Linear:
    if prepack and model.lm_head.weight is decoder.embed_tokens.weight:
        return onednn.prepack(model, "lm_head", is_shared=True)
    return _single(model, "lm_head", prepack)
