"""Models without memory for their weights, which the tensors of a file then become."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel


def model_without_weights(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model whose matrices are on the meta device; its buffers are in memory."""
    auto_model: Any = AutoModelForCausalLM
    with _EmptyOnMeta():
        model: PreTrainedModel = auto_model.from_config(config, dtype=dtype)
    return model


class _EmptyOnMeta(TorchFunctionMode):
    """While it is entered, `torch.empty`, with which modules make their matrices, takes no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **kwargs | {"device": "meta"}) if func is torch.empty else func(*args, **kwargs)
