"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path("/")


def num_usable_cores(root: Path = ROOT) -> int:
    """Return torch's number of threads, at most as many as the CPU quota of the container allows.

    torch knows the CPU affinity of the process and `OMP_NUM_THREADS`, but no quota: in a container with
    `--cpus=2` on 64 cores it would start 64 threads, and the system would stop all of them most of the time.
    """
    quota = cpu_quota(root)
    cores = torch.get_num_threads()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPUs that the control groups of this process allow together; None if there is no limit."""
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            folder = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = Path(os.path.normpath(path))
        for parent in (group, *group.parents):  # a limit of any group above holds, too
            quota = _quota_of(folder / parent.relative_to("/"))
            if quota is not None:
                yield quota


def _quota_of(group: Path) -> float | None:
    if text := _read(group / "cpu.max"):
        quota, period = text.split()
    else:
        quota = _read(group / "cpu.cfs_quota_us") or "-1"
        period = _read(group / "cpu.cfs_period_us") or "100000"
    return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
