"""A model and its tokenizer from a folder or a hub id."""

from __future__ import annotations

from typing import Any


def load_model(path_or_hub_id: str, device: str | None) -> tuple[Any, Any, str]:
    """Model, tokenizer and the device it is for: the given one, else the best there is.

    On CPU in float32, elsewhere in the precision that the model was saved in.
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
