"""A short run of scripts/kill_test.py on each persistent store, or 100 kills of each in the full suite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import run_postgres
from redis_server import run_redis
from suite_size import size

from .server import REPOSITORY

pytestmark = pytest.mark.server

Record = Callable[[str, object], None]


def kill_again_and_again(folder: Path, store: str | None, record_property: Record) -> None:
    num_kills = size(2, 100)
    command = [sys.executable, str(REPOSITORY / "scripts" / "kill_test.py")]
    command += ["--kills", str(num_kills), "--visitors", "4", "--folder", str(folder)]
    command += ["--store", store] if store else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=100 * num_kills)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faults"] == []
    assert result["turns_kept"] > 0
    record_property(
        "figure",
        f"{result['store']}: {num_kills} kills, {result['turns_kept']:,} turns, none lost or doubled",
    )


def test_embedded_files(tmp_path: Path, record_property: Record) -> None:
    kill_again_and_again(tmp_path, None, record_property)


def test_sqlite(tmp_path: Path, record_property: Record) -> None:
    kill_again_and_again(tmp_path, f"sqlite:///{tmp_path}/chat.db", record_property)


def test_postgresql(tmp_path: Path, record_property: Record) -> None:
    for port in run_postgres():
        kill_again_and_again(tmp_path, f"postgresql://postgres@127.0.0.1:{port}/postgres", record_property)


def test_redis(tmp_path: Path, record_property: Record) -> None:
    for port in run_redis(tmp_path):
        kill_again_and_again(tmp_path, f"redis://127.0.0.1:{port}", record_property)
