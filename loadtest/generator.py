"""Run locust in its own process, at a lower priority than the server, and read its records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .plan import Plan
from .record import Phase, read_phase
from .server import REPOSITORY

NICENESS = "5"
FINISH_SEC = 120  # for running replies to finish once the run is over


def run_phase(plan: Plan, url: str, folder: Path) -> Phase:
    """Run one plan; locust's own report is written next to the records."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(
            "nice",
            "-n",
            NICENESS,
            sys.executable,
            "-m",
            "locust",
            "-f",
            str(REPOSITORY / "loadtest/locustfile.py"),
        ),
        *("--headless", "--host", url, "--stop-timeout", str(FINISH_SEC), "--only-summary"),
        *("--csv", str(folder / "locust"), "--html", str(folder / "locust.html")),
    ]
    environ = os.environ | plan.to_environ() | {"PYTHONPATH": str(REPOSITORY)}
    with (folder / "locust.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, env=environ, cwd=REPOSITORY, stdout=log, stderr=log)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"locust ended with {done.returncode}; see {folder / 'locust.log'}")
    return read_phase(Path(plan.records))
