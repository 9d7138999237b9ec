"""Bandwidth: bytes per second of the device's memory, measured with buffers larger than any cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from .settings import Settings

NUM_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}  # per buffer
NUM_TRIES = 5


class Bandwidth:
    """Measures memory bandwidth by copying and by summing a large buffer."""

    def __init__(self, settings: Settings, num_bytes: int | None = None) -> None:
        self._device = torch.device(settings.device)
        size = (num_bytes or NUM_BYTES[self._device.type]) // 4
        self._source = torch.ones(size, device=self._device)  # written, so that its pages are allocated
        self._target = torch.zeros(size, device=self._device)

    def measure(self) -> dict[str, Any]:
        """Return the best of several tries, as the bandwidth is used as an upper bound."""
        num_bytes = self._source.nbytes
        return {
            "copy_bytes_per_s": 2 * num_bytes / self._best_sec(lambda: self._target.copy_(self._source)),
            "read_bytes_per_s": num_bytes / self._best_sec(lambda: self._source.sum()),
        }

    def _best_sec(self, do: Callable[[], Any]) -> float:
        return min(self._sec(do) for _ in range(NUM_TRIES))

    def _sec(self, do: Callable[[], Any]) -> float:
        self._wait()
        began = time.perf_counter()
        do()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def close(self) -> None: ...
