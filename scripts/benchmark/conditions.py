"""Conditions of a run: model, machine and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .options import Options
from .settings import Settings

PACKAGES = ("torch", "transformers")


def conditions(options: Options, settings: Settings) -> dict[str, Any]:
    return {
        "model": f"Llama, {settings.shape.num_parameters / 1e6:.1f} M random parameters",
        "dtype": settings.dtype,
        "device": settings.device,
        "new_tokens": options.new_tokens,
        "repeats": options.repeats,
        "threads": settings.threads,
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "gpus": _gpu_names() if options.is_on_cuda else [],
        **{name: _version(name) for name in PACKAGES},
    }


def _cpu_name() -> str:
    with suppress(OSError):  # no /proc
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.machine()


def _gpu_names() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return []


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None
