"""Packed weights: matrices of 4 to 8 bits that stay as they lie in a GGUF file, on CPU.

The compiled library multiplies them with inputs that it rounds to 8 bits, in blocks of 32 with a scale each.
"""

from __future__ import annotations

from ctypes import Structure, byref, c_int64, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .native_library import native_library

BLOCK = 32  # inputs that are rounded with one scale


class Weight(Structure):
    """The struct of native/interface.h."""

    _fields_ = [("data", c_void_p), ("format", c_int64)]


class PackedFormat(NamedTuple):
    """A block format of GGUF files."""

    number: int  # in GGUF files
    weights: int  # of a block
    num_bytes: int  # of a block

    def row_bytes(self, num_inputs: int) -> int:
        """Return the size of the weights of one output."""
        return num_inputs // self.weights * self.num_bytes


PACKED_FORMATS = {
    "Q4_0": PackedFormat(2, 32, 18),
    "Q4_1": PackedFormat(3, 32, 20),
    "Q5_0": PackedFormat(6, 32, 22),
    "Q5_1": PackedFormat(7, 32, 24),
    "Q8_0": PackedFormat(8, 32, 34),
    "Q4_K": PackedFormat(12, 256, 144),
    "Q5_K": PackedFormat(13, 256, 176),
    "Q6_K": PackedFormat(14, 256, 210),
}


class PackedMatrix:
    """A matrix `[outputs, inputs]` in one of PACKED_FORMATS."""

    def __init__(self, data: Tensor, num_inputs: int, format: PackedFormat) -> None:
        """:param data: uint8 `[outputs, format.row_bytes(num_inputs)]`, contiguous"""
        self.data = data
        self.num_inputs = num_inputs
        self.format = format

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.data), self.num_inputs))

    @property
    def struct(self) -> Weight:
        """The matrix for the compiled library, as long as this object lives."""
        return Weight(self.data.data_ptr(), self.format.number)

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T `[..., outputs]` for x `[..., inputs]`, in the dtype of x."""
        y = torch.empty(*x.shape[:-1], len(self.data), dtype=torch.float32, device=x.device)
        if x.is_meta or not x.numel():
            return y.to(x.dtype)
        rows = x.float().contiguous()
        done = native_library().packed_linear(
            c_void_p(rows.data_ptr()),
            c_int64(x.numel() // self.num_inputs),
            c_int64(self.num_inputs),
            byref(self.struct),
            c_int64(len(self.data)),
            c_void_p(y.data_ptr()),
            c_int64(torch.get_num_threads()),
        )
        if not done:
            raise MemoryError("no memory for the rounded inputs of a product")
        return y.to(x.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        """Return rows of the matrix as float32, `[..., inputs]` for indices `[...]`."""
        to = torch.empty(*indices.shape, self.num_inputs, dtype=torch.float32, device=indices.device)
        if indices.is_meta or self.data.is_meta:
            return to
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < len(self.data):
            raise IndexError(f"index out of range: the matrix has {len(self.data)} rows")
        wanted = indices.long().contiguous()
        native_library().unpack_rows(
            byref(self.struct),
            c_int64(self.num_inputs),
            c_void_p(wanted.data_ptr()),
            c_int64(wanted.numel()),
            c_void_p(to.data_ptr()),
        )
        return to


class PackedLinear(nn.Module):
    """Replaces an `nn.Linear` of a model."""

    weight: Tensor

    def __init__(self, matrix: PackedMatrix, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._size = matrix.num_inputs, matrix.format
        self.register_buffer("weight", matrix.data)
        self.bias = bias
        self.out_features, self.in_features = matrix.shape

    @property
    def matrix(self) -> PackedMatrix:
        return PackedMatrix(self.weight, *self._size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.matrix.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class PackedEmbedding(nn.Module):
    """Replaces an `nn.Embedding` of a model; rows are unpacked when they are looked up."""

    weight: Tensor
    embed_scale: Tensor

    def __init__(self, matrix: PackedMatrix, embed_scale: Tensor) -> None:
        """:param embed_scale: what rows are multiplied with; has the dtype in which they are returned"""
        super().__init__()
        self._size = matrix.num_inputs, matrix.format
        self.register_buffer("weight", matrix.data)
        self.register_buffer("embed_scale", embed_scale, persistent=False)
        self.num_embeddings, self.embedding_dim = matrix.shape

    @property
    def matrix(self) -> PackedMatrix:
        return PackedMatrix(self.weight, *self._size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.matrix.rows(ids).to(self.embed_scale.dtype) * self.embed_scale


class PackedProduct:
    """A linear layer of a fused forward pass: packed matrices whose outputs follow each other."""

    def __init__(self, modules: list[PackedLinear]) -> None:
        self.matrices = [module.matrix for module in modules]
        biases = [module.bias.detach() for module in modules if module.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.cat([matrix.product(x) for matrix in self.matrices], dim=-1)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)


def can_pack(module: nn.Module, format: PackedFormat) -> bool:
    """Return whether `pack_modules` can replace a module."""
    if type(module) is not nn.Linear and type(module) is not nn.Embedding and not _is_scaled(module):
        return False
    return int(module.weight.shape[1]) % format.weights == 0  # type: ignore[index]


def pack_modules(model: nn.Module, matrices: dict[str, PackedMatrix]) -> None:
    """Replace linear layers and embeddings of a model by packed ones.

    :param matrices: by the name of the module
    """
    for name, matrix in matrices.items():
        module: Any = model.get_submodule(name)
        if isinstance(module, nn.Linear):
            packed: nn.Module = PackedLinear(matrix, module.bias)
        else:
            scale = module.scalar_embed_scale if _is_scaled(module) else 1.0
            packed = PackedEmbedding(matrix, torch.tensor(scale, dtype=module.weight.dtype))
        model.set_submodule(name, packed)


def _is_scaled(module: nn.Module) -> bool:
    """Return whether this is an embedding of gemma, whose rows are multiplied with a constant."""
    return isinstance(module, nn.Embedding) and hasattr(module, "scalar_embed_scale")
