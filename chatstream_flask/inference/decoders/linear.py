"""Linear layers as a step uses them: plain, or packed for oneDNN, which on CPU is faster at a few rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

PACKED_FOR = 16  # rows that a packed weight is laid out for; any number may come
MEASURED_ROWS = (1, 8)
NUM_MEASURED = 7  # products of each kind
MIN_GAIN = 1.1  # of packed over plain, else the model stays as it is


class Linear(Protocol):
    """y = x W^T + b for x `[..., in]`."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + y"""


class PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)


class PrepackedLinear:
    """By what torch's own inductor emits for frozen weights. Not a module: calling one takes its time."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight  # opaque; or dense, and best laid out transposed, which is nearly as fast
        self.bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._sum = torch.ops.mkldnn._linear_pointwise.binary

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> PrepackedLinear:
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACKED_FOR), bias)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._product(x, self.weight, self.bias, "none", [], "")
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = self._sum(x, residual, self.weight, self.bias, "add")
        return y


class PackedLinear(nn.Module):
    """Takes the place of an `nn.Linear` in its model, whose plain weight is then gone.

    It stands for some of the outputs where one product was made of several linear layers.
    """

    def __init__(self, whole: PrepackedLinear, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self.whole = whole
        self._part = slice(start, stop)

    @property
    def weight(self) -> Tensor:
        """The plain one, made anew each time."""
        packed = self.whole.weight
        return packed.to_dense()[self._part] if packed.is_mkldnn else packed

    @property
    def bias(self) -> Tensor | None:
        return None if self.whole.bias is None else self.whole.bias[self._part]

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x)[..., self._part]


def has_products_of(dtype: torch.dtype) -> bool:
    """Of a torch that runs on CPU; in other number formats it is several times slower."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def packing_pays(weight: Tensor) -> bool:
    """Measured on this machine, in some hundredths of a second; False where oneDNN cannot have this dtype."""
    try:
        packed = PrepackedLinear.of(weight, None)
    except RuntimeError:
        return False
    plain = PlainLinear(weight, None)
    return _measured_sec(plain, weight) > MIN_GAIN * _measured_sec(packed, weight)


def _measured_sec(linear: Callable[[Tensor], Tensor], weight: Tensor) -> float:
    """Medians of several products, summed over the numbers of rows."""
    total = 0.0
    for rows in MEASURED_ROWS:
        x = torch.ones(rows, weight.shape[1], dtype=weight.dtype)
        times = []
        for _ in range(NUM_MEASURED):
            began = time.perf_counter()
            linear(x)
            times.append(time.perf_counter() - began)
        total += statistics.median(times)
    return total
