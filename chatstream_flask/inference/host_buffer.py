"""HostBuffer: numbers between Python lists and the device without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class HostBuffer:
    """A host tensor (pinned on CUDA) and its twin on the device, made once and used in every step.

    Copies run on the current stream; an event per buffer says when the host side may be used again.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._host = torch.zeros(size, dtype=dtype, pin_memory=self._is_cuda)
        self._twin = self._host if device.type == "cpu" else torch.zeros(size, dtype=dtype, device=device)
        self._copied = torch.cuda.Event() if self._is_cuda else None  # type: ignore[no-untyped-call]

    def send(self, values: Sequence[float]) -> Tensor:
        """The values on the device, `[len(values)]`; a view that the next `send` overwrites."""
        self.host(len(values)).copy_(torch.tensor(values, dtype=self._host.dtype))
        return self.flush(len(values))

    def host(self, size: int) -> Tensor:
        """The first `size` numbers of the host side, to be written and then flushed."""
        self._wait()
        return self._host[:size]

    def twin(self, size: int) -> Tensor:
        """The first `size` numbers on the device, always at the same place."""
        return self._twin[:size]

    def flush(self, size: int) -> Tensor:
        host, twin = self._host[:size], self.twin(size)
        if self._twin is not self._host:
            twin.copy_(host, non_blocking=self._is_cuda)
            self._record()
        return twin

    def start_fetch(self, values: Tensor) -> None:
        """Of a device tensor `[n]`."""
        self.host(len(values)).copy_(values, non_blocking=self._is_cuda)
        self._record()

    def fetched(self, size: int) -> list[Any]:
        """Its numbers: the one place where a step waits for the device."""
        self._wait()
        return self._host[:size].tolist()

    def _record(self) -> None:
        if self._copied is not None:
            self._copied.record()

    def _wait(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
