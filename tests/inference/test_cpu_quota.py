"""How many cores a container may use, from files as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from chatstream_flask.inference.cpu_quota import cpu_quota, num_usable_cores

V2 = "0::/"
V1 = "9:memory:/\n4:cpu,cpuacct:/docker/0123\n0::/"


def machine(folder: Path, groups: str, **files: str) -> Path:
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        (V2, {"cpu.max": "150000 100000"}, 1.5),
        (V2, {"cpu.max": "max 100000"}, None),
        (V2, {}, None),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000"}, None),
        ("0::/../x", {"cpu.max": "300000 100000"}, 3.0),  # of a group outside of the namespace
        (V1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu/docker/0123/cpu.cfs_quota_us": "200000"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_quota(groups: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cpu_quota(machine(tmp_path, groups, **files)) == quota


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert num_usable_cores(tmp_path) == torch.get_num_threads()


@pytest.mark.parametrize(("quota", "cores"), [("250000", 2), ("100000", 1), ("20000", 1), ("6400000", 4)])
def test_the_quota_bounds_the_number_of_cores(quota: str, cores: int, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert num_usable_cores(machine(tmp_path, V2, **{"cpu.max": f"{quota} 100000"})) == cores
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_the_affinity_of_the_process_bounds_the_number_of_cores() -> None:
    """In a new process, because torch asks when it is loaded."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from chatstream_flask.inference.cpu_quota import num_usable_cores\n"
        "print(num_usable_cores())"
    )
    environ = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
