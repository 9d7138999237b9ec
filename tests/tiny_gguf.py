"""A tiny GGUF file: a llama of random weights with a byte-level tokenizer, written with the gguf package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark.gguf_file import ARCHITECTURE, add_sizes, add_tensors, converted, tensor_names, write_all
from benchmark.shape import Shape
from tiny_models import tiny_model
from tokenizers.pre_tokenizers import ByteLevel

from chatstream_flask.inference.loading.gguf_files import known_splits

if not known_splits():
    pytest.skip("this transformers is too old for GGUF files", allow_module_level=True)

SPECIAL = ["<|end|>", "<|eot|>", "<|start|>"]
TOKENS = [*sorted(ByteLevel.alphabet()), "12", *SPECIAL]
MERGES = ["1 2"]
NORMAL, CONTROL = 1, 3  # token types
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>{% endif %}"
)


def gguf_model(**changes: Any) -> Any:
    """Return the model whose weights `write_tiny_gguf` writes."""
    return tiny_model("llama", vocab_size=len(TOKENS), **changes)


def write_tiny_gguf(
    path: Path, *, model: Any = None, rope_factors: Any = None, packed: str | None = None, **fields: Any
) -> None:
    """Write the file.

    :param model: of `gguf_model`
    :param packed: block format of the matrices; None: float32
    :param rope_factors: the tensor by which llama.cpp divides the rotary frequencies
    :param fields: further metadata, with "__" for dots
    """
    import gguf

    model = gguf_model() if model is None else model
    config = model.config
    shape = Shape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.max_position_embeddings,
        rope_theta=config.rope_parameters["rope_theta"],
    )
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    writer.add_name("tiny")
    add_sizes(writer, shape)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL if token in SPECIAL else NORMAL for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(TOKENS.index("<|end|>"))
    writer.add_eot_token_id(TOKENS.index("<|eot|>"))
    writer.add_chat_template(TEMPLATE)
    for name, value in ({"tokenizer__ggml__pre": "smollm"} | fields).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(name.replace("__", "."), value)
    weights = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    if packed is None:
        add_tensors(writer, weights, shape, np.float32)
    else:
        _add_packed(writer, weights, shape, packed)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(rope_factors, np.float32))
    write_all(writer)


def _add_packed(writer: Any, weights: dict[str, Any], shape: Shape, packed: str) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType[packed]
    for name, gguf_name in tensor_names(shape.num_hidden_layers).items():
        weight = converted(name, weights[name], shape, np.float32)
        if weight.ndim == 2:
            writer.add_tensor(gguf_name, quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name, weight)
