"""The small pieces of a FusedDecoder: norm, rotary angles, gated feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .linear import Linear, PackedLinear, PlainLinear


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """In the dtype of x; a weight of a wider one means that all is computed in that."""
        wide = x if x.dtype == self._weight.dtype else x.to(self._weight.dtype)
        return functional.rms_norm(wide, self._weight.shape, self._weight, self._eps).to(x.dtype)


class Rotary:
    """Rotary embedding (arXiv 2104.09864) in halves, as llama has it, by tables `[positions, head_dim]`."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self._cos = cos
        half = sin.shape[1] // 2
        self._sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
        self._half = half

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """For positions `[tokens]`: cos and sin `[tokens, 1, head_dim]`."""
        return self._cos[positions][:, None], self._sin[positions][:, None]

    def turned(self, heads: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Of `[tokens, heads, head_dim]`."""
        cos, sin = angles
        return torch.addcmul(heads * cos, heads.roll(self._half, -1), sin)


class FeedForward(Protocol):
    """down(activation(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def plus(self, x: Tensor, residual: Tensor) -> Tensor: ...


class PlainFeedForward:
    """Gate and up as one product."""

    def __init__(self, gate_up: PlainLinear, down: Linear, activation: Callable[[Tensor], Tensor]) -> None:
        self._gate_up = gate_up
        self._down = down
        self._activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return self._down(self._gated(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._down.plus(self._gated(x), residual)

    def _gated(self, x: Tensor) -> Tensor:
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        return self._activation(gate) * up


class PackedFeedForward:
    """Activation, product and sum are done by the matrix products themselves."""

    def __init__(self, gate: PackedLinear, up: PackedLinear, down: PackedLinear, activation: str) -> None:
        self._gate = gate
        self._up = up
        self._down = down
        self._activation = activation  # of `linear.ACTIVATIONS`

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._down(self._gated(x))
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._down.plus(self._gated(x), residual)

    def _gated(self, x: Tensor) -> Tensor:
        return self._up.times(x, self._gate.activated(x, self._activation))
