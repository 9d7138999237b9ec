"""Load a model and its tokenizer from a folder or the hub."""

from __future__ import annotations

from typing import Any


def load_model(path_or_hub_id: str, device: str | None) -> tuple[Any, Any, str]:
    """Return the model, its tokenizer, and the device to serve it on.

    On CPU the model is loaded in float32, elsewhere in the dtype it was saved in.

    :param device: None: the best device of this machine (CUDA, MPS, CPU)
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or _best_device()
    dtype = torch.float32 if device == "cpu" else "auto"
    tokenizer = load_tokenizer(path_or_hub_id)
    model = AutoModelForCausalLM.from_pretrained(path_or_hub_id, dtype=dtype)
    return model, tokenizer, device


def load_tokenizer(path_or_hub_id: str) -> Any:
    """Load the tokenizer of a model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path_or_hub_id)


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
