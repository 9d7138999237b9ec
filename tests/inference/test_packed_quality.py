"""What packed weights do to a real model: perplexity, likeliest tokens, distance to the unpacked weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from smollm2 import smollm2_folder
from torch import Tensor, nn
from torch.nn import functional

from chatstream_flask.config import Weights
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.decoders.packed import PackedEmbedding, PackedLinear
from chatstream_flask.inference.decoders.quantise import quantise_model
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.inference.logits_check import relative_error

if native_library() is None:
    pytest.skip("no C compiler when this was installed", allow_module_level=True)

TEXT = Path(__file__).with_name("gettysburg_address.txt")  # Abraham Lincoln, 1863


class Float(NamedTuple):
    """SmolLM2 in float32, and what it makes of the text."""

    model: Any
    ids: Tensor
    logits: Tensor


@pytest.fixture(scope="module")
def plain() -> Float:
    model, tokenizer, _ = load_model(str(smollm2_folder()), "cpu", "float32")
    ids = torch.tensor([tokenizer.encode(TEXT.read_text())])
    with torch.inference_mode():
        return Float(model, ids, model(ids).logits[0])


def perplexity(logits: Tensor, ids: Tensor) -> float:
    return float(functional.cross_entropy(logits[:-1], ids[0, 1:]).exp())


def share_of_equal_tokens(logits: Tensor, others: Tensor) -> float:
    """Return at how many positions the same token is the likeliest."""
    return float((logits.argmax(-1) == others.argmax(-1)).float().mean())


def unpack(model: nn.Module) -> None:
    """Give a model of packed weights the same weights in float32."""
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedLinear | PackedEmbedding):
            rows = module.matrix.rows(torch.arange(len(module.weight)))
            if isinstance(module, PackedEmbedding):
                replacement: Any = nn.Embedding(len(rows), rows.shape[1], device="meta")
            else:
                replacement = nn.Linear(module.in_features, module.out_features, device="meta")
                replacement.bias = module.bias
            replacement.weight = nn.Parameter(rows)
            model.set_submodule(name, replacement)


@pytest.mark.parametrize(
    ("weights", "max_growth", "min_equal"), [(Weights.INT8, 1.03, 0.9), (Weights.INT4, 1.6, 0.5)]
)
@torch.inference_mode()
def test_perplexity_and_likeliest_tokens_of_a_real_model(
    plain: Float, weights: Weights, max_growth: float, min_equal: float
) -> None:
    model = copy.deepcopy(plain.model)
    quantise_model(model, weights)
    logits = model(plain.ids).logits[0]
    growth = perplexity(logits, plain.ids) / perplexity(plain.logits, plain.ids)
    equal = share_of_equal_tokens(logits, plain.logits)
    print(f"{weights.value}: perplexity times {growth:.3f}, {equal:.1%} of tokens equal")
    assert growth < max_growth
    assert equal > min_equal
    unpack(model)
    unpacked = model(plain.ids).logits[0]
    error, equal = relative_error(unpacked, logits), share_of_equal_tokens(unpacked, logits)
    print(f"against the unpacked weights: error {error:.3f}, {equal:.1%} of tokens equal")
    assert error < 0.1
    assert equal > 0.9
