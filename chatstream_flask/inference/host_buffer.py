"""HostBuffer: copies of numbers between Python lists and the device that do not block the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class HostBuffer:
    """A host tensor (pinned on CUDA) and a device tensor of the same size, allocated once.

    Copies run on the current stream. A CUDA event tells when the host tensor may be used again.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._host = torch.zeros(size, dtype=dtype, pin_memory=self._is_cuda)
        self._device = self._host if device.type == "cpu" else torch.zeros(size, dtype=dtype, device=device)
        self._copied = torch.cuda.Event() if self._is_cuda else None  # type: ignore[no-untyped-call]

    def send(self, values: Sequence[float]) -> Tensor:
        """Copy values to the device; return them as a view `[len(values)]` valid until the next `send`."""
        self.host(len(values)).copy_(torch.tensor(values, dtype=self._host.dtype))
        return self.flush(len(values))

    def host(self, size: int) -> Tensor:
        """Return the first `size` elements of the host tensor, to be written and then flushed."""
        self._wait()
        return self._host[:size]

    def on_device(self, size: int) -> Tensor:
        """Return the first `size` elements of the device tensor; their address never changes."""
        return self._device[:size]

    def flush(self, size: int) -> Tensor:
        """Copy the first `size` elements to the device and return them there."""
        host, device = self._host[:size], self.on_device(size)
        if self._device is not self._host:
            device.copy_(host, non_blocking=self._is_cuda)
            self._record()
        return device

    def start_fetch(self, values: Tensor) -> None:
        """Start to copy a device tensor `[n]` to the host."""
        self.host(len(values)).copy_(values, non_blocking=self._is_cuda)
        self._record()

    def fetched(self, size: int) -> list[Any]:
        """Return the fetched numbers; the only place where a step waits for the device."""
        self._wait()
        return self._host[:size].tolist()

    def _record(self) -> None:
        if self._copied is not None:
            self._copied.record()

    def _wait(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
