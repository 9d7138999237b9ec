"""PackedCheckpoint: a checkpoint of GPTQ, AWQ or compressed-tensors, served on CPU in its 4 or 8 bits."""

from __future__ import annotations

import copy
import logging
import re
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import hub

from ...errors import ConfigError
from ..decoders.native_library import native_library
from ..decoders.packed import PACKED_FORMATS, PackedMatrix, can_pack, pack_modules
from ..kv_memory import MIB
from .grouped_weights import GroupedWeights, awq, compressed_tensors, gptq
from .without_weights import model_without_weights

logger = logging.getLogger("chatstream_flask")

BITS = (4, 8)
WEIGHTS = "model.safetensors"


class PackedCheckpoint:
    """The weights of a folder or hub id whose config has a `quantization_config` that is understood here."""

    def __init__(self, quantization: dict[str, Any]) -> None:
        self._quantization = quantization

    @classmethod
    def of(cls, quantization: Any) -> PackedCheckpoint | None:
        """Return the checkpoint of a `quantization_config`; None: another package must unpack it."""
        is_known = isinstance(quantization, dict) and _is_known(quantization)
        return cls(quantization) if is_known and native_library() is not None else None

    def replaced(self, skeleton: PreTrainedModel) -> PreTrainedModel:
        """Return the model without memory for its weights, in the formats that most of them will have."""
        ignored = self._quantization.get("ignore") or self._quantization.get("modules_to_not_convert") or []
        patterns = [part[3:] if part.startswith("re:") else f".*{re.escape(part)}" for part in ignored]
        outer: Any = skeleton
        head = outer.get_output_embeddings()
        matrices = {}
        for name, module in skeleton.named_modules():
            is_ignored = module is head or any(re.match(pattern, name) for pattern in patterns)
            if type(module) is nn.Linear and not is_ignored and can_pack(module, PACKED_FORMATS["Q8_0"]):
                format = PACKED_FORMATS[_format(self._quantization)]
                shape = module.out_features, format.row_bytes(module.in_features)
                data = torch.empty(shape, dtype=torch.uint8, device="meta")
                matrices[name] = PackedMatrix(data, module.in_features, format)
        pack_modules(skeleton, matrices)
        return skeleton

    def load(self, path: str, revision: str | None, config: Any) -> PreTrainedModel:
        """Return the model; what is not packed has the data type of the config.

        :raises ConfigError: a weight is missing, or its inputs are not a multiple of 32
        """
        config = copy.deepcopy(config)
        del config.quantization_config  # as the model has no modules of that package
        dtype = config.dtype or torch.float16
        model = model_without_weights(config, dtype)
        with ExitStack() as stack:
            tensors: dict[str, Any] = {}  # the file of each
            for file in _files(path, revision):
                opened = stack.enter_context(safe_open(file, framework="pt"))
                tensors |= dict.fromkeys(opened.keys(), opened)
            matrices = self._matrices(model, tensors)
            pack_modules(model, matrices)
            state = {
                name: tensors[name].get_tensor(name).to(dtype)
                for name, parameter in model.named_parameters()
                if name in tensors
            }
        model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
        with suppress(OSError):  # there is no such file
            config_class: Any = GenerationConfig
            model.generation_config = config_class.from_pretrained(path, revision=revision)
        lacking = [name for name, weight in model.named_parameters() if weight.is_meta]
        if lacking:
            raise ConfigError(f"the files have no tensor for {lacking[0]}")
        size = sum(matrix.data.nbytes for matrix in matrices.values())
        logger.info("%.1f MiB of weights are served in 4 or 8 bits, as they are in %s", size / MIB, path)
        return model

    # ------------------------------------------------------------------------------------------------

    def _matrices(self, model: PreTrainedModel, tensors: dict[str, Any]) -> dict[str, PackedMatrix]:
        matrices = {}
        for name, module in model.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            weights = self._read(partial(_tensor, tensors, name), module.in_features)
            if weights is None:
                continue
            if weights.bits not in BITS or not can_pack(module, PACKED_FORMATS["Q8_0"]):
                raise ConfigError(
                    f"{name} has {weights.bits} bits and {module.in_features} inputs; 4 or 8 bits and a "
                    "multiple of 32 inputs are supported"
                )
            matrices[name] = weights.packed()
        return matrices

    def _read(self, tensor: Any, num_inputs: int) -> GroupedWeights | None:
        match self._quantization["quant_method"]:
            case "gptq":
                is_v2 = self._quantization.get("checkpoint_format") == "gptq_v2"
                return gptq(tensor, num_inputs, has_lowered_zeros=not is_v2)
            case "awq":
                return awq(tensor, num_inputs)
            case _:
                return compressed_tensors(tensor, num_inputs)


def _is_known(quantization: dict[str, Any]) -> bool:
    match quantization.get("quant_method"):
        case "gptq":
            is_known = quantization.get("checkpoint_format") in ("gptq", "gptq_v2", None)
            return quantization.get("bits") in BITS and is_known
        case "awq":
            layout = quantization.get("version") or quantization.get("format") or "gemm"
            return quantization.get("bits") == 4 and str(layout).lower() == "gemm"
        case "compressed-tensors":
            groups = quantization.get("config_groups", {}).values()
            layouts = [quantization.get("format"), *(group.get("format") for group in groups)]
            return set(layouts) <= {"pack-quantized", "int-quantized", None} and all(
                (weights := group.get("weights") or {}).get("type") == "int"
                and weights.get("num_bits") in BITS
                for group in groups
            )
        case _:
            return False


def _format(quantization: dict[str, Any]) -> str:
    """Return the format that most weights will have, as far as the config tells."""
    match quantization["quant_method"]:
        case "gptq":
            bits, is_symmetric = quantization["bits"], quantization.get("sym", True)
            is_in_order = not quantization.get("desc_act") or quantization.get("group_size") == -1
        case "awq":
            bits, is_symmetric, is_in_order = 4, not quantization.get("zero_point", True), True
        case _:
            weights = next(iter(quantization["config_groups"].values()))["weights"]
            bits, is_symmetric = weights["num_bits"], weights.get("symmetric", True)
            is_in_order = weights.get("actorder") != "group"
    if bits == 8 or not is_in_order:
        return "Q8_0"
    return "Q4_0" if is_symmetric else "Q4_1"


def _tensor(tensors: dict[str, Any], module: str, part: str) -> Tensor | None:
    """Return a tensor of a module; None: it has no such one."""
    name = f"{module}.{part}"
    tensor: Tensor | None = tensors[name].get_tensor(name) if name in tensors else None
    return tensor


def _files(path: str, revision: str | None) -> list[str]:
    find: Any = hub.cached_file
    find_shards: Any = hub.get_checkpoint_shard_files
    is_optional = {"_raise_exceptions_for_missing_entries": False}
    index = find(path, f"{WEIGHTS}.index.json", revision=revision, **is_optional)
    if index is None:
        return [find(path, WEIGHTS, revision=revision)]
    files: list[str] = find_shards(path, index, revision=revision)[0]
    return files
