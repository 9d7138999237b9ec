"""A real PostgreSQL on a free port, for one test session."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fakes import TIMEOUT

from chatstream_flask.client import free_port

NO_POSTGRES = "PostgreSQL is not installed; scripts/test installs it where it can"
NO_USER = "PostgreSQL does not run as root, and there is no user postgres"


def run_postgres() -> Iterator[int]:
    """Run a server; yield its port. User and database are `postgres`, without a password."""
    programs = _programs()
    options = _as_postgres()
    directory = Path(
        tempfile.mkdtemp(prefix="chatstream-postgres-")
    )  # other users cannot read pytest's folders
    if options:
        shutil.chown(directory, options["user"])
    try:
        data = directory / "data"
        init: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            data,
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
        ]
        subprocess.run([*init, "--encoding=UTF8", "--locale=C"], check=True, capture_output=True, **options)
        port = free_port()
        serve: list[str | Path] = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1"]
        settings = ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        log = (directory / "log").open("w")
        with log, subprocess.Popen([*serve, *settings], stdout=log, stderr=log, **options) as server:
            try:
                _wait_until_open(port)
                yield port
            finally:
                server.send_signal(signal.SIGQUIT)  # immediate shutdown
    finally:
        shutil.rmtree(directory)


def _programs() -> Path:
    """Return the folder of the programs, which Debian has outside the PATH."""
    found = shutil.which("initdb") or max(glob("/usr/lib/postgresql/*/bin/initdb"), default=None)
    if found is None:
        pytest.skip(NO_POSTGRES)
    return Path(found).resolve().parent


def _as_postgres() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip(NO_USER)
    return {"user": "postgres", "cwd": "/"}


def _wait_until_open(port: int) -> None:
    pause = threading.Event()
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres").close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end
            pause.wait(0.02)
