"""check_model: refuses at start, with a sentence, every model that the slot path would serve wrongly."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from ..errors import ConfigError, UnsupportedModel
from .attention_mask import layer_windows
from .placement import is_dispatched

# Models with an attention of their own that were tested here. Every other model must use transformers'
# attention interface: else nobody knows whether it looks at more than its mask (gpt_neo does).
OWN_ATTENTION_TESTED = frozenset({"codegen", "falcon", "gptj", "stablelm"})

# By name: not every version of transformers has all of them.
KEY_VALUE_LAYERS = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"})


def check_model(model: PreTrainedModel, context_len: int) -> None:
    """Raises UnsupportedModel or ConfigError for what is known without computing anything."""
    config = model.config.get_text_config()
    _check_kind(model, config)
    _check_cache(config)
    layer_windows(config)
    _check_positions(config, context_len)


def _check_kind(model: PreTrainedModel, config: Any) -> None:
    kind = config.model_type
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{kind} is an encoder-decoder; only decoder-only models can be served")
    if not model.can_generate():
        raise UnsupportedModel(
            f"{type(model).__name__} has no language model head; load it with AutoModelForCausalLM"
        )
    if kind == "bloom" or getattr(config, "alibi", False):
        raise UnsupportedModel(f"{kind} adds alibi to its attention, which takes no mask by row")
    if getattr(config, "use_bidirectional_attention", False) or any(
        getattr(module, "is_causal", None) is False for module in model.modules()
    ):
        raise UnsupportedModel(f"{kind} attends in both directions; only causal models can be served")
    if not getattr(model, "_supports_attention_backend", False) and kind not in OWN_ATTENTION_TESTED:
        raise UnsupportedModel(
            f"{kind} has an attention of its own that does not go through transformers' attention interface"
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise UnsupportedModel(
            f"attention '{config._attn_implementation}' takes no 4-D mask; "
            "load the model with attn_implementation='sdpa' or 'eager'"
        )
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1 and not is_dispatched(model):
        raise UnsupportedModel(
            f"the model is on {', '.join(sorted(devices))}, and nothing takes what it computes from one to "
            "the other; put it on one device, or load it with device_map"
        )


def _check_cache(config: Any) -> None:
    """Only keys and values per position can be kept in slots: no recurrent states, no indexers."""
    layers = DynamicCache(config=config).layers
    if foreign := {type(layer).__name__ for layer in layers} - KEY_VALUE_LAYERS:
        names = ", ".join(sorted(foreign))
        raise UnsupportedModel(f"{config.model_type} keeps more than keys and values per position: {names}")
    windows = {layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)}
    if len(windows) > 1:
        raise UnsupportedModel(f"{config.model_type} has layers with different windows: {sorted(windows)}")


def _check_positions(config: Any, context_len: int) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and context_len > longest:
        raise ConfigError(
            f"context_len={context_len} is more than the {longest} positions of {config.model_type}; "
            f"set context_len to at most {longest}"
        )
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        original = rope.get("original_max_position_embeddings") or longest or context_len
        if rope.get("rope_type") in ("dynamic", "longrope") and context_len > original:
            raise UnsupportedModel(
                f"{config.model_type} changes its rotary angles ({rope['rope_type']}) for a whole batch once "
                f"one sequence passes {original} tokens; set context_len={context_len} to at most {original}"
            )


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """One dict, or one per layer kind."""
    if not isinstance(parameters, dict):
        return []
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]
