"""A short run of scripts/kill_test.py on each persistent store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import run_postgres
from redis_server import run_redis

from .server import REPOSITORY

pytestmark = pytest.mark.server


def kill_three_times(folder: Path, store: str | None) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "kill_test.py")]
    command += ["--kills", "3", "--visitors", "4", "--folder", str(folder)]
    command += ["--store", store] if store else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faults"] == []
    assert result["turns_kept"] > 0


def test_embedded_files(tmp_path: Path) -> None:
    kill_three_times(tmp_path, None)


def test_sqlite(tmp_path: Path) -> None:
    kill_three_times(tmp_path, f"sqlite:///{tmp_path}/chat.db")


def test_postgresql(tmp_path: Path) -> None:
    for port in run_postgres():
        kill_three_times(tmp_path, f"postgresql://postgres@127.0.0.1:{port}/postgres")


def test_redis(tmp_path: Path) -> None:
    for port in run_redis(tmp_path):
        kill_three_times(tmp_path, f"redis://127.0.0.1:{port}")
