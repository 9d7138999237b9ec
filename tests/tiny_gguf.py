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
    _add_tokenizer(writer)
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


def _add_tokenizer(writer: Any) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL if token in SPECIAL else NORMAL for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(TOKENS.index("<|end|>"))
    writer.add_eot_token_id(TOKENS.index("<|eot|>"))
    writer.add_chat_template(TEMPLATE)


# Other architectures: kind of `tiny_model`, with what its GGUF files cannot say otherwise.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "qwen3": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "gemma2": {  # with the number of layers by which llama.cpp knows the model of 27 B
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 64 // 4,
        "num_hidden_layers": 46,
        "layer_types": ["sliding_attention", "full_attention"] * 23,
    },
    "gemma3_text": {
        "tie_word_embeddings": True,
        "layer_types": ["sliding_attention"] * 2,  # five of six are
    },
    "starcoder2": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "stablelm": {},
    "gpt2": {"tie_word_embeddings": True},
}


def write_family_gguf(path: Path, kind: str) -> Any:
    """Write a tiny model of `FAMILIES` as llama.cpp's converter does, and return it."""
    import gguf

    model = tiny_model(kind, vocab_size=len(TOKENS), **FAMILIES[kind])
    config = model.config
    architecture = gguf.MODEL_ARCH[kind.removesuffix("_text").upper()]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", config.num_attention_heads))
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 0.0))
    writer.add_layer_norm_eps(1e-5)
    if head_dim := getattr(config, "head_dim", None):
        writer.add_key_length(head_dim)
    if rope := getattr(config, "rope_parameters", None):
        writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        writer.add_sliding_window(config.sliding_window)
    writer.add_string("tokenizer.ggml.pre", "smollm")
    _add_tokenizer(writer)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert gguf_name is not None
            writer.add_tensor(gguf_name, _as_in_files(kind, name, weight.numpy()))
    write_all(writer)
    return model


def _as_in_files(kind: str, name: str, weight: Any) -> Any:
    if "gemma" in kind and "norm" in name:
        weight = weight + 1
    if kind == "gpt2" and weight.ndim == 2 and ".h." in name:  # layers whose matrices are transposed
        weight = weight.T
    return np.ascontiguousarray(weight, np.float32)
