"""Linear layers of a forward pass: plain, or prepacked for oneDNN, which is faster for a few rows on CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

PREPACK_ROWS = 16  # the number of rows that oneDNN optimizes a prepacked weight for; any number works
MEASURED_ROWS = (1, 8)
NUM_MEASURED = 7  # products of each kind
MIN_GAIN = 1.1  # speed of prepacked / plain, below which the weights stay plain


class Linear(Protocol):
    """y = x W^T + b for x `[..., in]`."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + y."""


class PlainLinear:
    """A linear layer with a plain weight `[out, in]`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)


class PrepackedLinear:
    """A linear layer with a weight laid out for oneDNN, by the operators that torch's inductor uses.

    It is not an nn.Module, because calling a module takes extra time.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """:param weight: opaque (see `of`), or dense and preferably transposed, which is nearly as fast"""
        self.weight = weight
        self.bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._sum = torch.ops.mkldnn._linear_pointwise.binary

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> PrepackedLinear:
        """Prepack a plain weight.

        :raises RuntimeError: oneDNN does not support its dtype
        """
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PREPACK_ROWS), bias)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._product(x, self.weight, self.bias, "none", [], "")
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = self._sum(x, residual, self.weight, self.bias, "add")
        return y


class PrepackedModule(nn.Module):
    """Replaces an `nn.Linear` of a model, whose plain weight is then freed.

    Where several linear layers were merged into one product, it returns a slice of the outputs.
    """

    def __init__(self, whole: PrepackedLinear, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self.whole = whole
        self._outputs = slice(start, stop)

    @property
    def weight(self) -> Tensor:
        """The plain weight, computed anew for each access."""
        weight = self.whole.weight
        return weight.to_dense()[self._outputs] if weight.is_mkldnn else weight

    @property
    def bias(self) -> Tensor | None:
        return None if self.whole.bias is None else self.whole.bias[self._outputs]

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x)[..., self._outputs]


def has_fast_matmul(dtype: torch.dtype) -> bool:
    """Return whether this processor has instructions for products of this dtype; else it is much slower."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def prepacking_is_faster(weight: Tensor) -> bool:
    """Measure it on this machine, within some tens of milliseconds; False if oneDNN lacks the dtype."""
    try:
        prepacked = PrepackedLinear.of(weight, None)
    except RuntimeError:
        return False
    plain = PlainLinear(weight, None)
    return _measured_sec(plain, weight) > MIN_GAIN * _measured_sec(prepacked, weight)


def _measured_sec(linear: Callable[[Tensor], Tensor], weight: Tensor) -> float:
    """Return the median time of a product, summed over MEASURED_ROWS."""
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
