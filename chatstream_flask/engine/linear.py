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

# The last two arguments of oneDNN's operator by the activation that it computes on the way.
ACTIVATIONS: dict[str, tuple[str, str]] = {
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}


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


class PackedLinear(nn.Module):
    """Takes the place of an `nn.Linear`, whose plain weight is then gone: no weight is in memory twice.

    Calls what torch's own inductor emits for frozen weights. With a weight that others share, such as an
    embedding, it stays dense and is only laid out anew, which is nearly as fast.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = weight
        self.bias = bias

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACKED_FOR), bias)

    @classmethod
    def sharing(cls, weight: nn.Parameter, bias: Tensor | None) -> PackedLinear:
        """Of a weight that stays where it is: only its memory is transposed, not its values or its shape."""
        weight.data = weight.data.t().contiguous().t()
        return cls(weight, bias)

    @property
    def weight(self) -> Tensor:
        """The plain one, made anew each time."""
        return self.packed.to_dense() if self.packed.is_mkldnn else self.packed

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, "none", "")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._combined(x, residual, "add")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return self._combined(x, factor, "mul")

    def activated(self, x: Tensor, activation: str) -> Tensor:
        return self._product(x, *ACTIVATIONS[activation])

    def _product(self, x: Tensor, attr: str, algorithm: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.packed, self.bias, attr, [], algorithm)
        return y

    def _combined(self, x: Tensor, other: Tensor, attr: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, self.bias, attr)
        return y


class PackedPart(nn.Module):
    """Some outputs of a PackedLinear that stands for several linear layers: for the model's own forward."""

    def __init__(self, whole: PackedLinear, start: int, stop: int) -> None:
        super().__init__()
        self.whole = whole
        self.start = start
        self.stop = stop

    @property
    def weight(self) -> Tensor:
        return self.whole.weight[self.start : self.stop]

    @property
    def bias(self) -> Tensor | None:
        return None if self.whole.bias is None else self.whole.bias[self.start : self.stop]

    def forward(self, x: Tensor) -> Tensor:
        part: Tensor = self.whole(x)[..., self.start : self.stop]
        return part


def packing_pays(weight: Tensor) -> bool:
    """Measured on this machine, in some hundredths of a second; False where oneDNN cannot have this dtype."""
    try:
        packed = PackedLinear.of(weight, None)
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
