"""The memory that a model needs, computed from its config without loading weights."""

# mypy: allow-untyped-calls
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Memory and context length of a model."""

    weights_bytes: int
    kv_bytes_per_token: int  # of all layers
    context_len: int | None  # positions that it was trained for; None: unknown


def model_size(path_or_hub_id: str, dtype_name: str | None = None) -> ModelSize:
    """Compute the size of a model from a folder or the hub.

    :param dtype_name: "float32", "bfloat16" or "float16"; None: the dtype that the model was saved in
    :raises ConfigError: there is no such model, or it cannot be served
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path_or_hub_id)
        dtype = getattr(torch, dtype_name) if dtype_name else config.dtype or torch.float32
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{path_or_hub_id} cannot be read: {error}") from error
    return ModelSize(
        weights_bytes=weights_bytes(model),
        kv_bytes_per_token=kv_bytes_per_token(model),
        context_len=getattr(config.get_text_config(), "max_position_embeddings", None),
    )


def weights_bytes(model: Any) -> int:
    """Return the size of a model's weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def kv_bytes_per_token(model: Any) -> int:
    """Return the size of one token in the KV cache of all layers."""
    from .kv_cache import layer_shapes

    return sum(shape.num_bytes for shape in layer_shapes(model))


def memory_bytes(device: str) -> int:
    """Return the total memory of a CUDA device, else that of the machine."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
