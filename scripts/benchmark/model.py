"""The benchmark's model: a Llama with random weights, and a tokenizer with one word per token."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .shape import SHAPES, Shape


def make_model(shape: Shape = SHAPES["small"], dtype: str = "float32", device: str = "cpu") -> Any:
    """Return a model with the same weights each time, created on the device, as not all fit elsewhere."""
    sizes = asdict(shape)
    rope = {"rope_type": "default", "rope_theta": sizes.pop("rope_theta")}
    config = LlamaConfig(
        **sizes,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,  # so that every reply has exactly the requested length
    )
    gc.collect()  # frees the previous model, if any
    if device != "cpu":
        torch.cuda.empty_cache()
    torch.manual_seed(0)
    with torch.device(device), default_dtype(getattr(torch, dtype)):
        model = LlamaForCausalLM(config)
    model.train(False)
    return model


def make_tokenizer(vocab_size: int = SHAPES["small"].vocab_size) -> Any:
    """Return a tokenizer whose token i is the word "ti", so that the tokens of a text are its words."""
    tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(vocab_size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
