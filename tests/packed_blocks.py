"""Random packed weights in the block formats of GGUF, and files of models that consist of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmark.gguf_file import interleaved
from torch import Tensor

from chatstream_flask.inference.decoders.packed import PACKED_FORMATS

RNG = np.random.default_rng(0)


class Halves(NamedTuple):
    """Where the half-precision numbers of a block lie, and their size that gives weights of about 0.1."""

    scale: tuple[int, float]
    min: tuple[int, float] | None = None


HALVES = {
    "Q4_0": Halves((0, 0.02)),
    "Q4_1": Halves((0, 0.02), (2, -0.15)),
    "Q5_0": Halves((0, 0.01)),
    "Q5_1": Halves((0, 0.01), (2, -0.155)),
    "Q8_0": Halves((0, 0.0013)),
    "Q4_K": Halves((0, 0.0003), (2, 0.0023)),
    "Q5_K": Halves((0, 0.00015), (2, 0.0023)),
    "Q6_K": Halves((208, 0.00007)),
}


def random_rows(name: str, num_rows: int, num_inputs: int) -> np.ndarray[Any, Any]:
    """Return rows of random blocks, uint8 `[rows, bytes]`."""
    _, weights, num_bytes = PACKED_FORMATS[name]
    blocks = RNG.integers(0, 256, (num_rows, num_inputs // weights, num_bytes), dtype=np.uint8)
    for half in HALVES[name]:
        if half is not None:
            at, size = half
            values = (size * RNG.uniform(0.5, 1.5, (*blocks.shape[:2], 1))).astype(np.float16)
            blocks[:, :, at : at + 2] = values.view(np.uint8)
    return blocks.reshape(num_rows, -1)


def unpacked(name: str, rows: np.ndarray[Any, Any]) -> Tensor:
    """Return what the gguf package makes of packed rows."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(rows, GGMLQuantizationType[name]))


def write_packed(path: Path, model: Any, architecture: str, formats: dict[str, str], default: str) -> None:
    """Write a model's tensors to a GGUF file, as llama.cpp's converter does; its matrices become random.

    :param formats: of some matrices, by a part of their names in GGUF
    """
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None
        part = gguf_name.split(".")[-2]
        num_heads = heads.get(part) if architecture == "llama" else None
        if parameter.ndim == 1:
            is_offset = architecture.startswith("gemma") and name.endswith("norm.weight")
            values = parameter.detach().numpy() + np.float32(is_offset)
            writer.add_tensor(gguf_name, interleaved(values, num_heads) if num_heads else values)
            continue
        kind = formats.get(part, default)
        rows = random_rows(kind, *parameter.shape)
        parameter.data = unpacked(kind, rows)
        rows = np.ascontiguousarray(interleaved(rows, num_heads) if num_heads else rows)
        writer.add_tensor(gguf_name, rows, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
