"""Conversion of a transformers Llama to a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .quantise import BLOCK, q4_k, q6_k
from .shape import Shape

ARCHITECTURE = "llama"
OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
KINDS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "q8_0": "Q8_0"}  # precision -> GGUF's name
NORMAL, CONTROL = 1, 3  # token types


def write_model(path: Path, folder: Path, precision: str) -> None:
    """Write the Llama in a folder of transformers.

    :param precision: "float32", "bfloat16", "float16", "q8_0" or "q4": Q4_K_M as llama.cpp mixes it, or Q4_0
        where rows are not multiples of 256 numbers
    """
    import gguf  # imported here, as the conversion itself does not need it

    shape = Shape.of(folder)
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    add_sizes(writer, shape)
    _add_tokenizer(writer, folder)
    names = tensor_names(shape.num_hidden_layers)
    for name, weight in _weights(folder):
        if name == "lm_head.weight" and shape.tie_word_embeddings:
            continue
        matrix = converted(name, weight, shape, np.float32)
        kind = gguf.GGMLQuantizationType[kind_of(names[name], precision, shape)]
        writer.add_tensor(names[name], _packed(matrix, kind), raw_dtype=kind)
    write_all(writer)


def kind_of(gguf_name: str, precision: str, shape: Shape) -> str:
    """Return the name of the format of a tensor."""
    part, *_ = gguf_name.removesuffix(".weight").split(".")[-1:]
    if part.endswith("norm"):
        return "F32"
    if precision in KINDS:
        return KINDS[precision]
    if shape.hidden_size % BLOCK or shape.intermediate_size % BLOCK:
        return "Q4_0"
    if part in ("token_embd", "output"):
        return "Q6_K"
    if part in ("attn_v", "ffn_down") and _has_more_bits(
        int(gguf_name.split(".")[1]), shape.num_hidden_layers
    ):
        return "Q6_K"
    return "Q4_K"


def _has_more_bits(layer: int, num_layers: int) -> bool:
    """Return whether Q4_K_M gives a layer more bits: as `use_more_bits` in llama.cpp's llama-quant.cpp."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _packed(matrix: np.ndarray[Any, Any], kind: Any) -> np.ndarray[Any, Any]:
    from gguf.quants import quantize

    own = {"Q4_K": q4_k, "Q6_K": q6_k}
    packed: np.ndarray[Any, Any] = own[kind.name](matrix) if kind.name in own else quantize(matrix, kind)
    return packed


def _weights(folder: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is not a mapping)
                yield name, tensors.get_tensor(name).float().numpy()


def _add_tokenizer(writer: Any, folder: Path) -> None:
    """Add a byte-level tokenizer.

    :raises ValueError: it is of another kind
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    model, config = tokenizer["model"], json.loads((folder / "config.json").read_text())
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise ValueError(f"the tokenizer in {folder} is not a byte-level one, which alone can be converted")
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    names = {i: token for token, i in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if "Digits" in json.dumps(tokenizer["pre_tokenizer"]) else "gpt-2")
    writer.add_token_list([names.get(i, f"<unused{i}>") for i in range(config["vocab_size"])])
    writer.add_token_types(
        [CONTROL if added.get(i, {}).get("special") else NORMAL for i in range(config["vocab_size"])]
    )
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    )
    writer.add_add_bos_token(False)
    if isinstance(eos := config.get("eos_token_id"), int):
        writer.add_eos_token_id(eos)


def tensor_names(num_layers: int) -> dict[str, str]:
    """Return the GGUF name of each tensor, by its name in transformers."""
    of_layers = {
        f"model.layers.{i}.{name}.weight": f"blk.{i}.{gguf_name}.weight"
        for i in range(num_layers)
        for name, gguf_name in LAYER_NAMES.items()
    }
    return OUTER_NAMES | of_layers


def interleaved(weight: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """Return a query or key projection with its rows in llama.cpp's order.

    The two elements of a rotary pair are adjacent in llama.cpp, and half a head apart in transformers.
    """
    halves = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    rows: np.ndarray[Any, Any] = halves.swapaxes(1, 2).reshape(weight.shape)
    return rows


def converted(name: str, weight: np.ndarray[Any, Any], shape: Shape, dtype: Any) -> np.ndarray[Any, Any]:
    if ".q_proj." in name:
        weight = interleaved(weight, shape.num_attention_heads)
    elif ".k_proj." in name:
        weight = interleaved(weight, shape.num_key_value_heads)
    return np.ascontiguousarray(weight, dtype if weight.ndim == 2 else np.float32)


def add_sizes(writer: Any, shape: Shape) -> None:
    """Add the sizes of a model to the metadata of a `gguf.GGUFWriter`."""
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_dimension_count(shape.hidden_size // shape.num_attention_heads)
    writer.add_rope_freq_base(shape.rope_theta)


def add_tensors(writer: Any, weights: Mapping[str, np.ndarray[Any, Any]], shape: Shape, dtype: Any) -> None:
    """Add the weights under their names in GGUF."""
    for name, gguf_name in tensor_names(shape.num_hidden_layers).items():
        writer.add_tensor(gguf_name, converted(name, weights[name], shape, dtype))


def write_all(writer: Any) -> None:
    """Write what was added to the file, and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
