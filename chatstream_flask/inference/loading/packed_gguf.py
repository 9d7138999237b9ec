"""PackedGguf: the model of a GGUF file, with its matrices mapped into memory as they lie in the file."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..decoders.native_library import native_library
from ..decoders.packed import PACKED_FORMATS, PackedMatrix, can_pack, pack_modules
from ..kv_memory import MIB
from .without_weights import model_without_weights

logger = logging.getLogger("chatstream_flask")

# Architectures whose tensors llama.cpp's convert_hf_to_gguf.py stores as they are, except for:
PERMUTES_HEADS = frozenset({"llama"})  # the rows of query and key, in the order of its rotary embedding
ADDS_ONE_TO_NORMS = frozenset({"gemma2", "gemma3"})
ARCHITECTURES = PERMUTES_HEADS | ADDS_ONE_TO_NORMS | {"qwen2", "qwen3"}
UNUSED = frozenset({"rope_freqs.weight"})  # see GgufFiles._scale_rope
PLAIN_FORMATS = frozenset({"F32", "F16", "BF16"})
SUFFIXES = (".weight", ".bias")


class PackedGguf:
    """The tensors of a GGUF file under the names of transformers."""

    def __init__(self, path: str, reader: Any, architecture: str | None) -> None:
        """:param reader: a `gguf.GGUFReader` of the file"""
        self._path = path
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._architecture = architecture

    def obstacle(self, skeleton: PreTrainedModel) -> str | None:
        """Return why the matrices must be unpacked; None: they need not be.

        :param skeleton: the model on the meta device
        """
        if native_library() is None:
            return "the compiled decoder was not built when the package was installed"
        if self._architecture not in ARCHITECTURES:
            return f"packed weights of the architecture {self._architecture} are not supported"
        if not any(self._is_packed(tensor) for tensor in self._tensors.values()):
            return "the file has no packed weights"
        names = self._names(skeleton)
        lacking = [name for name, _ in skeleton.named_parameters() if name not in names]
        if lacking:
            return f"the file has no tensor for {lacking[0]}"
        more = self._tensors.keys() - set(names.values()) - UNUSED
        if more:
            return f"the model has no parameter for {min(more)}"
        for name, tensor_name in names.items():
            tensor = self._tensors[tensor_name]
            is_plain = tensor.tensor_type.name in PLAIN_FORMATS
            module = (
                skeleton.get_submodule(name.removesuffix(".weight")) if name.endswith(".weight") else None
            )
            if not is_plain and not (
                self._is_packed(tensor)
                and module is not None
                and can_pack(module, PACKED_FORMATS[tensor.tensor_type.name])
            ):
                return f"{tensor_name} is {tensor.tensor_type.name}, which is not supported here"
        return None

    def replaced(self, skeleton: PreTrainedModel) -> PreTrainedModel:
        """Return the skeleton with packed modules, whose weights are on the meta device as well."""
        skeleton.to(self.dtype)  # type: ignore[arg-type]
        matrices = self._matrices(skeleton)
        for matrix in {id(matrix): matrix for matrix in matrices.values()}.values():
            matrix.data = matrix.data.to("meta")
        pack_modules(skeleton, matrices)
        return skeleton

    def load(self, config: Any) -> PreTrainedModel:
        """Return the model; what is not packed is in memory as `dtype`."""
        model = model_without_weights(config, self.dtype)
        names, matrices = self._names(model), self._matrices(model)
        pack_modules(model, matrices)
        state = {
            name: self._plain(model, tensor_name)
            for name, tensor_name in names.items()
            if name.removesuffix(".weight") not in matrices
        }
        model.load_state_dict(state, strict=False, assign=True)
        size = sum(matrix.data.nbytes for matrix in {id(m.data): m for m in matrices.values()}.values())
        logger.info("%.1f MiB of weights are served as they are packed in %s", size / MIB, self._path)
        return model

    @cached_property
    def dtype(self) -> torch.dtype:
        """bfloat16 if the norms and biases of the file lose nothing by it, as is usual, else float32."""
        vectors = [self._values(name) for name, tensor in self._tensors.items() if len(tensor.shape) == 1]
        is_exact = all(torch.equal(vector, vector.bfloat16().float()) for vector in vectors)
        return torch.bfloat16 if is_exact else torch.float32

    # ------------------------------------------------------------------------------------------------

    def _is_packed(self, tensor: Any) -> bool:
        return len(tensor.shape) == 2 and tensor.tensor_type.name in PACKED_FORMATS

    def _names(self, model: PreTrainedModel) -> dict[str, str]:
        """Return the file's tensor of each parameter that it has; a tied head has that of the embedding."""
        import gguf

        number = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self._architecture)
        known = gguf.get_tensor_name_map(number, model.config.get_text_config().num_hidden_layers)
        names = {}
        for name, _ in model.named_parameters(remove_duplicate=False):
            tensor_name = known.get_name(name, try_suffixes=SUFFIXES)
            if name == "lm_head.weight" and tensor_name not in self._tensors:
                tensor_name = known.get_name("model.embed_tokens.weight", try_suffixes=SUFFIXES)
            if tensor_name is not None and tensor_name in self._tensors:
                names[name] = tensor_name
        return names

    def _matrices(self, model: PreTrainedModel) -> dict[str, PackedMatrix]:
        """Return the packed matrices, by the name of the module."""
        mapped = np.memmap(self._path, mode="c")
        matrices: dict[str, PackedMatrix] = {}  # by the name of the tensor
        for tensor_name in set(self._names(model).values()):
            tensor = self._tensors[tensor_name]
            if self._is_packed(tensor):
                num_inputs, num_outputs = map(int, tensor.shape)
                start = int(tensor.data_offset)
                data = torch.from_numpy(mapped[start : start + int(tensor.n_bytes)]).view(num_outputs, -1)
                data = self._with_heads_of_transformers(model, tensor_name, data)
                packed_format = PACKED_FORMATS[tensor.tensor_type.name]
                matrices[tensor_name] = PackedMatrix(data, num_inputs, packed_format)
        return {
            name.removesuffix(".weight"): matrices[tensor_name]
            for name, tensor_name in self._names(model).items()
            if tensor_name in matrices
        }

    def _plain(self, model: PreTrainedModel, name: str) -> Tensor:
        values = self._with_heads_of_transformers(model, name, self._values(name))
        if self._architecture in ADDS_ONE_TO_NORMS and name.endswith("norm.weight"):
            values = values - 1
        return values.to(self.dtype)

    def _values(self, name: str) -> Tensor:
        """Return a tensor as float32."""
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))

    def _with_heads_of_transformers(self, model: PreTrainedModel, name: str, data: Tensor) -> Tensor:
        """Return the rows of queries or keys in the order of transformers.

        Its rotary embedding turns elements i and i + head_dim / 2 of a head, llama.cpp's 2i and 2i + 1.
        """
        config = model.config.get_text_config()
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        num_heads = heads.get(name.split(".")[-2])
        if num_heads is None or self._architecture not in PERMUTES_HEADS:
            return data
        return data.view(num_heads, -1, 2, *data.shape[1:]).transpose(1, 2).reshape(data.shape)
