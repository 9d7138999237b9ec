"""Conversion of a transformers Llama to a GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .shape import Shape

ARCHITECTURE = "llama"
RMS_NORM_EPS = 1e-6  # LlamaConfig's default
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


def write_gguf(path: str, weights: Mapping[str, np.ndarray[Any, Any]], shape: Shape, half: bool) -> None:
    """Write the model.

    :param half: store matrices as float16, else everything as float32
    """
    import gguf  # imported here, as the conversion itself does not need it

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    add_sizes(writer, shape)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    add_tensors(writer, weights, shape, np.float16 if half else np.float32)
    write_all(writer)


def add_sizes(writer: Any, shape: Shape) -> None:
    """Add the sizes of a model to the metadata of a `gguf.GGUFWriter`."""
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(RMS_NORM_EPS)
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
