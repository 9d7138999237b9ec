"""The memory that a model needs, computed from its config without loading weights."""

# mypy: allow-untyped-calls
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from ..config import Dtype, Weights


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Memory and context length of a model."""

    weights_bytes: int
    kv_bytes_per_token: int  # of all layers
    context_len: int | None  # positions that it was trained for; None: unknown


def model_size(name: str, dtype: str = "auto", weights: str = "auto") -> ModelSize:
    """Compute the size of a model from a folder, a GGUF file or the hub.

    :param dtype: as for `load_model`, on CPU
    :param weights: as for `load_model`
    :raises ConfigError: there is no such model
    :raises UnsupportedModel: it cannot be served
    """
    from .loading.load_model import find_model_files

    model = find_model_files(name).skeleton_of(Dtype(dtype), "cpu", Weights(weights))
    return ModelSize(
        weights_bytes=weights_bytes(model),
        kv_bytes_per_token=kv_bytes_per_token(model),
        context_len=getattr(model.config.get_text_config(), "max_position_embeddings", None),
    )


def weights_bytes(model: Any) -> int:
    """Return the size of a model's weights."""
    return sum(weight.nbytes for weight in (*model.parameters(), *model.buffers()))


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
