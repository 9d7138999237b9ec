"""quantise_model: round the matrices of any loaded model to 8 or 4 bits."""

from __future__ import annotations

import logging
from ctypes import c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from ...config import Weights
from ..kv_memory import MIB
from .native_library import native_library
from .packed import PACKED_FORMATS, PackedFormat, PackedMatrix, can_pack, pack_modules

logger = logging.getLogger("chatstream_flask")

CHUNK = 1 << 24  # weights that are float32 at once


@torch.no_grad()
def quantise_model(model: nn.Module, weights: Weights) -> None:
    """Replace linear layers and embeddings of a model by packed ones, one after the other.

    Matrices whose inputs are not a multiple of 32 stay as they are, and so do those of other modules,
    such as the experts of a mixture.
    """
    num_bytes = sum(weight.nbytes for weight in model.parameters())
    formats = packed_formats(model, weights)
    shared: dict[int, list[str]] = {}  # names of the modules with a weight: a head may have the embedding's
    for name in formats:
        shared.setdefault(id(model.get_submodule(name).weight), []).append(name)
    for names in shared.values():
        weight = model.get_submodule(names[0]).weight
        assert isinstance(weight, Tensor)
        pack_modules(model, dict.fromkeys(names, quantised(weight.detach(), formats[names[0]])))
    logger.info(
        "weights are rounded to %s: %.1f MiB instead of %.1f MiB",
        weights.value,
        sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / MIB,
        num_bytes / MIB,
    )


def packed_formats(model: nn.Module, weights: Weights) -> dict[str, PackedFormat]:
    """Return the format of each matrix that is rounded, by the name of its module.

    The embedding and the head have 8 bits in any case, as llama.cpp's files have more bits there.
    """
    outer: Any = model
    ends = {id(outer.get_input_embeddings()), id(outer.get_output_embeddings())}
    formats = {}
    for name, module in model.named_modules():
        format = PACKED_FORMATS["Q4_0" if weights is Weights.INT4 and id(module) not in ends else "Q8_0"]
        if isinstance(module, (nn.Linear, nn.Embedding)) and can_pack(module, format):
            formats[name] = format
    return formats


def quantised(weight: Tensor, format: PackedFormat) -> PackedMatrix:
    """Return a matrix `[outputs, inputs]` rounded to Q8_0 or Q4_0."""
    num_outputs, num_inputs = weight.shape
    data = torch.empty(num_outputs, format.row_bytes(num_inputs), dtype=torch.uint8, device=weight.device)
    if not weight.is_meta:
        step = max(1, CHUNK // num_inputs)
        for start in range(0, num_outputs, step):
            rows = weight[start : start + step].float().contiguous()
            native_library().quantise_weights(
                c_void_p(rows.data_ptr()),
                c_int64(rows.numel() // format.weights),
                c_int64(format.number),
                c_void_p(data[start].data_ptr()),
                c_int64(torch.get_num_threads()),
            )
    return PackedMatrix(data, num_inputs, format)
