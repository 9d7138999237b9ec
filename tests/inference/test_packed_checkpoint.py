"""Checkpoints of GPTQ, AWQ and compressed-tensors, made here, against the model of their unpacked weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from torch import Tensor, nn

from chatstream_flask.config import Dtype
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.decoders.native_decoder import NativeDecoder
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.decoders.packed import PACKED_FORMATS, PackedLinear
from chatstream_flask.inference.loading.load_model import find_model_files
from chatstream_flask.inference.logits_check import relative_error
from chatstream_flask.inference.model_size import model_size, weights_bytes
from chatstream_flask.inference.prepared_model import PreparedModel

if native_library() is None:
    pytest.skip("no C compiler when this was installed", allow_module_level=True)

SIZES = {"hidden_size": 256, "intermediate_size": 384}
FORMAT_NAMES = {format: name for name, format in PACKED_FORMATS.items()}


@dataclass(frozen=True)
class Case:
    """A kind of checkpoint, and the format that its matrices are brought to.

    :param max_error: of a weight, in parts of its scale
    """

    config: dict[str, Any]
    bits: int
    group_size: int
    is_symmetric: bool
    format: str
    max_error: float = 0.0
    is_in_order: bool = True


def gptq(bits: int = 4, **config: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits} | config


def compressed(layout: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": {"type": "int"} | weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


HALF = 2**-11  # relative error of half precision
CASES = {
    "gptq": Case(gptq(group_size=128, sym=True), 4, 128, True, "Q4_0"),
    "gptq-zeros": Case(gptq(group_size=32, sym=False), 4, 32, False, "Q4_1", 15 * HALF),
    "gptq-v2": Case(
        gptq(group_size=64, sym=False, checkpoint_format="gptq_v2"), 4, 64, False, "Q4_1", 15 * HALF
    ),
    "gptq-order": Case(
        gptq(group_size=64, sym=True, desc_act=True), 4, 64, True, "Q8_0", 0.25, is_in_order=False
    ),
    "gptq-8": Case(gptq(8, group_size=128, sym=True), 8, 128, True, "Q8_0"),
    "gptq-8-zeros": Case(gptq(8, group_size=128, sym=False), 8, 128, False, "Q8_0", 4.0),
    "awq": Case(
        {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
        *(4, 64, False, "Q4_1", 15 * HALF),
    ),
    "compressed": Case(compressed("pack-quantized", num_bits=4, symmetric=True), 4, 128, True, "Q4_0"),
    "compressed-zeros": Case(
        compressed("pack-quantized", num_bits=4, symmetric=False), 4, 32, False, "Q4_1", 15 * HALF
    ),
    "compressed-8": Case(compressed("int-quantized", num_bits=8, symmetric=True), 8, 0, True, "Q8_0"),
}


def words(values: Tensor, bits: int, order: range | list[int] | None = None) -> Tensor:
    """Return int32 `[rows, columns * bits / 32]` of integers `[rows, columns]`, the lowest bits first."""
    parts = values.to(torch.int64).reshape(len(values), -1, 32 // bits)
    total = torch.zeros_like(parts[..., 0])
    for place, column in enumerate(order or range(32 // bits)):
        total |= parts[..., column] << bits * place
    return torch.where(total >= 1 << 31, total - (1 << 32), total).int()


def tensors_of(
    case: Case, values: Tensor, scales: Tensor, zeros: Tensor, groups: Tensor
) -> dict[str, Tensor]:
    """Return what a file has for a matrix, without the name of the module."""
    bits = case.bits
    match case.config["quant_method"]:
        case "gptq":
            lowered = 0 if "checkpoint_format" in case.config else 1
            return {
                "qweight": words(values, bits).T,
                "qzeros": words(zeros.T - lowered & (1 << bits) - 1, bits),
                "scales": scales.T,
                "g_idx": groups.int(),
            }
        case "awq":
            order = [0, 2, 4, 6, 1, 3, 5, 7]
            return {
                "qweight": words(values.T, 4, order),
                "qzeros": words(zeros.T, 4, order),
                "scales": scales.T,
            }
    if bits == 8:
        return {"weight": (values.int() - 128).to(torch.int8), "weight_scale": scales}
    tensors = {
        "weight_packed": words(values, 4),
        "weight_scale": scales,
        "weight_shape": torch.tensor(values.shape),
    }
    if not case.is_symmetric:
        tensors["weight_zero_point"] = words(zeros.T, 4).T
    return tensors


def write_checkpoint(folder: Path, case: Case) -> tuple[Any, dict[str, Tensor]]:
    """Write a checkpoint of random integers; return the model of unpacked weights, and its scales."""
    generator = torch.Generator().manual_seed(5)
    model = tiny_model("llama", **SIZES).half().float()
    tensors: dict[str, Tensor] = {}
    scale_of: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if type(module) is not nn.Linear or name == "lm_head":
            continue
        num_outputs, num_inputs = module.weight.shape
        num_groups = num_inputs // case.group_size if case.group_size else 1
        groups = torch.arange(num_inputs) // (num_inputs // num_groups)
        if not case.is_in_order:
            groups = groups[torch.randperm(num_inputs, generator=generator)]
        top = 1 << case.bits
        values = torch.randint(top, (num_outputs, num_inputs), generator=generator).to(torch.uint8)
        scales = torch.rand(num_outputs, num_groups, generator=generator).half() / (4 * top)
        zeros = torch.full((num_outputs, num_groups), top // 2)
        if not case.is_symmetric:
            zeros = torch.randint(1, top - 1, zeros.shape, generator=generator)
        scale_of[name] = scales.float()[:, groups]
        module.weight.data = scale_of[name] * (values.int() - zeros[:, groups])
        tensors |= {
            f"{name}.{part}": tensor
            for part, tensor in tensors_of(case, values, scales, zeros, groups).items()
        }
    others = {
        name: weight.half()
        for name, weight in model.state_dict().items()
        if name.removesuffix(".weight") not in scale_of
    }
    save_file(
        {name: it.contiguous() for name, it in (tensors | others).items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = model.config.to_dict() | {"dtype": "float16", "quantization_config": case.config}
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    (folder / "generation_config.json").write_text('{"temperature": 0.625}')
    return model, scale_of


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.inference_mode()
def test_a_checkpoint_is_served_in_its_bits_and_gives_the_logits_of_its_unpacked_weights(
    tmp_path: Path, case: Case
) -> None:
    plain, scale_of = write_checkpoint(tmp_path, case)
    files = find_model_files(str(tmp_path))
    files.check_weights()
    model = files.load_weights(Dtype.AUTO, "cpu")
    for name, scales in scale_of.items():
        module = model.get_submodule(name)
        assert isinstance(module, PackedLinear)
        assert FORMAT_NAMES[module.matrix.format] == case.format
        rows = module.matrix.rows(torch.arange(module.out_features))
        error = (rows - plain.get_submodule(name).weight).abs()
        assert (error <= scales.amax(1, keepdim=True) * case.max_error).all(), name
    assert model.generation_config.temperature == 0.625
    assert weights_bytes(model) == pytest.approx(model_size(str(tmp_path)).weights_bytes, rel=0.01)
    prepared = PreparedModel(model, 64)
    prepared.prepare(1)
    assert isinstance(prepared.forward, NativeDecoder)
    ids = torch.arange(50)[None]
    assert relative_error(plain(ids).logits[0], model(ids).logits[0].float()) < 0.03


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CASES["gptq"])
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.qweight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"no tensor for model\.layers\.1\.mlp\.up_proj\.weight"):
        find_model_files(str(tmp_path)).load_weights(Dtype.AUTO, "cpu")


@pytest.mark.parametrize(("dtype", "device"), [("float32", "cpu"), ("auto", "cuda")])
def test_where_it_is_unpacked_the_package_for_it_is_asked_for_before_the_weights_are_read(
    tmp_path: Path, dtype: str, device: str
) -> None:
    write_checkpoint(tmp_path, CASES["gptq"])
    (tmp_path / "model.safetensors").write_text("is not read")
    with pytest.raises(ConfigError, match="requires optimum"):
        find_model_files(str(tmp_path)).load_weights(Dtype(dtype), device)
