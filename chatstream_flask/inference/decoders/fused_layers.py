"""The building blocks of a FusedDecoder: norm, rotary embedding, gated feed-forward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .linear import Linear


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        self._eps_term = torch.tensor(eps, device=weight.device)
        self._is_cpu_float32 = weight.device.type == "cpu" and weight.dtype == torch.float32

    def __call__(self, x: Tensor) -> Tensor:
        """Return the result in the dtype of x; a weight of a wider dtype is computed in that dtype."""
        if self._is_cpu_float32 and x.dtype == torch.float32:
            return self._on_cpu(x)
        wide = x if x.dtype == self.weight.dtype else x.to(self.weight.dtype)
        return functional.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)

    def _on_cpu(self, x: Tensor) -> Tensor:
        """Compute the norm with half as many operations as torch's own implementation has on CPU."""
        length = torch.linalg.vector_norm(x, 2, -1, True)
        factor = torch.addcmul(self._eps_term, length, length, value=1 / x.shape[-1]).rsqrt_()
        return torch.mul(x, factor).mul_(self.weight)


class Rotary:
    """Rotary embedding (arXiv 2104.09864) of the two halves of a head, as in llama.

    The tables `cos` and `sin` are `[positions, head_dim]`.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self._half = sin.shape[1] // 2
        self.cos = cos
        # The first half is negated: x1 cos - x2 sin, x2 cos + x1 sin.
        self.sin = torch.cat([-sin[:, : self._half], sin[:, self._half :]], dim=1)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin `[tokens, 1, head_dim]` for positions `[tokens]`."""
        return self.cos[positions][:, None], self.sin[positions][:, None]

    def rotated(self, heads: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Return rotated heads `[tokens, heads, head_dim]`."""
        cos, sin = angles
        return torch.addcmul(heads * cos, heads.roll(self._half, -1), sin)


class FeedForward:
    """down(activation(gate(x)) * up(x)) (arXiv 2002.05202), with gate and up as one product."""

    def __init__(self, gate_up: Linear, down: Linear, activation: Callable[[Tensor], Tensor]) -> None:
        self.gate_up = gate_up
        self.down = down
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self._gated(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.down.plus(self._gated(x), residual)

    def _gated(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.activation(gate).mul_(up)


def gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")
