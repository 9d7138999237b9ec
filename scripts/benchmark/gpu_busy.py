"""GpuBusy: GPU utilization over time, as reported by nvidia-smi."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from threading import Thread

COMMAND = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100")


class GpuBusy:
    """Samples the utilization of a device such as "cuda:1"; no samples on CPU or without nvidia-smi."""

    def __init__(self, device: str) -> None:
        self._seen: list[tuple[float, float]] = []  # time.perf_counter(), utilization from 0 to 1
        self._process: subprocess.Popen[str] | None = None
        kind, _, index = device.partition(":")
        if kind == "cuda":
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [*COMMAND, "-i", index or "0"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                Thread(target=self._listen, daemon=True).start()

    def between(self, begin: float, end: float) -> float | None:
        """Return the mean utilization between two times; None without samples."""
        shares = [share for at, share in self._seen if begin <= at <= end]
        return sum(shares) / len(shares) if shares else None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                self._seen.append((time.perf_counter(), int(line) / 100))
