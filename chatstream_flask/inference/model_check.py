"""check_model: refuse models that cannot be served correctly, before anything is computed."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from ..errors import ConfigError, UnsupportedModel
from .attention_mask import layer_windows
from .placement import is_dispatched

# Models with an attention implementation of their own that are tested here. Any other model must use
# transformers' attention interface, because an implementation of its own may attend to more than the mask
# says (that of gpt_neo does).
OWN_ATTENTION_TESTED = frozenset({"codegen", "falcon", "gptj", "stablelm"})

# By name: not every version of transformers has all of them.
KEY_VALUE_LAYERS = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"})


def check_model(model: PreTrainedModel, context_len: int) -> None:
    """Check the model's architecture and config.

    :raises UnsupportedModel: this kind of model cannot be served
    :raises ConfigError: `context_len` is too long for it
    """
    config = model.config.get_text_config()
    _check_architecture(model, config)
    _check_cache(config)
    layer_windows(config)
    _check_positions(config, context_len)


def _check_architecture(model: PreTrainedModel, config: Any) -> None:
    kind = config.model_type
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{kind} is an encoder-decoder; only decoder-only models are supported")
    if not model.can_generate():
        raise UnsupportedModel(
            f"{type(model).__name__} has no language model head; load it with AutoModelForCausalLM"
        )
    if kind == "bloom" or getattr(config, "alibi", False):
        raise UnsupportedModel(f"{kind} uses alibi position biases, which are not supported")
    if getattr(config, "use_bidirectional_attention", False) or any(
        getattr(module, "is_causal", None) is False for module in model.modules()
    ):
        raise UnsupportedModel(f"{kind} attends in both directions; only causal models are supported")
    if not getattr(model, "_supports_attention_backend", False) and kind not in OWN_ATTENTION_TESTED:
        raise UnsupportedModel(
            f"{kind} has an attention implementation of its own, which is not supported; "
            "only models that use transformers' attention interface are"
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise UnsupportedModel(
            f"attention '{config._attn_implementation}' does not support 4-D masks; "
            "load the model with attn_implementation='sdpa' or 'eager'"
        )
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1 and not is_dispatched(model):
        raise UnsupportedModel(
            f"the model's weights are on several devices ({', '.join(sorted(devices))}), and nothing "
            "moves the activations between them; put it on one device, or load it with device_map"
        )


def _check_cache(config: Any) -> None:
    """Slots can hold keys and values of positions only: no recurrent states, no indexers."""
    layers = DynamicCache(config=config).layers
    if foreign := {type(layer).__name__ for layer in layers} - KEY_VALUE_LAYERS:
        names = ", ".join(sorted(foreign))
        raise UnsupportedModel(
            f"{config.model_type} caches more than keys and values of positions, "
            f"which is not supported: {names}"
        )
    windows = {layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)}
    if len(windows) > 1:
        raise UnsupportedModel(
            f"{config.model_type} has sliding windows of several lengths, which is not supported: "
            f"{sorted(windows)}"
        )


def longest_context(config: Any) -> int | None:
    """Return the number of tokens that a model can be served with; None if its config does not tell."""
    limits = [_max_positions(config), *(_positions_before_change(rope) for rope in _ropes(config))]
    return min((limit for limit in limits if limit is not None), default=None)


def _check_positions(config: Any, context_len: int) -> None:
    longest = _max_positions(config)
    if longest is not None and context_len > longest:
        raise ConfigError(
            f"context_len={context_len} is more than the {longest} positions of {config.model_type}; "
            f"set context_len to at most {longest}"
        )
    for rope in _ropes(config):
        original = _positions_before_change(rope)
        if original is not None and context_len > original:
            raise UnsupportedModel(
                f"{config.model_type} changes the rotary angles of a whole batch ({rope['rope_type']}) once "
                f"one sequence exceeds {original} tokens; set context_len={context_len} to at most {original}"
            )


def _max_positions(config: Any) -> int | None:
    longest = getattr(config, "max_position_embeddings", None)
    return longest if isinstance(longest, int) else None


def _positions_before_change(rope: dict[str, Any]) -> int | None:
    """Return the length from which on the rotary angles of a whole batch change; None: they never do."""
    changes = rope.get("rope_type") in ("dynamic", "longrope")
    return rope.get("original_max_position_embeddings") if changes else None


def _ropes(config: Any) -> list[dict[str, Any]]:
    """Return the rope parameters of each layer kind; most configs have one dict for all."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return []
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]
