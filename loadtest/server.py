"""A server of ours as a process of its own, started and ended by its pid, and what it holds."""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from .server_app import ServerSettings

REPOSITORY = Path(__file__).parents[1]
START_SEC = 120.0
STOP_SEC = 60.0


@dataclass(frozen=True)
class Server:
    kind: str
    url: str
    process: psutil.Process | None  # None: not ours
    settings: ServerSettings
    environ: dict[str, str]

    def held(self) -> dict[str, int]:
        """What its processes hold of the machine, and its files of conversations."""
        assert self.process is not None
        processes = [self.process, *self.process.children(recursive=True)]
        folder = Path(self.settings.folder) / "conversations"
        return {
            "threads": sum(process.num_threads() for process in processes),
            "rss_kib": sum(process.memory_info().rss for process in processes) // 1024,
            "open_files": sum(process.num_fds() for process in processes),
            "conversation_files": sum(1 for _ in folder.iterdir()) if folder.exists() else 0,
        }

    def purge(self) -> None:
        """Removes conversations whose time is over, as an operator's cron job does."""
        command = [sys.executable, "-m", "flask", "--app", "loadtest.server_app:app", "chatstream", "purge"]
        subprocess.run(command, env=self.environ, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running_server(kind: str, settings: ServerSettings) -> Iterator[Server]:
    """It answers `/health/ready`; it ends with the block. Its output is in `server.log` of its folder."""
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    environ = os.environ | settings.to_environ() | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            _command(kind, port),
            env=environ,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that gunicorn's worker can be ended with it
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, folder)
        yield Server(kind, url, psutil.Process(process.pid), settings, environ)
    finally:
        _end(process)


def servers_under_test(kinds: list[str], url: str | None, settings: ServerSettings) -> Iterator[Server]:
    """One after the other, each in a folder of its own; only the one at `url` if that is given."""
    if url is not None:
        yield Server("url", url.rstrip("/"), None, settings, {})
        return
    for kind in kinds:
        with running_server(kind, replace(settings, folder=str(Path(settings.folder) / kind))) as server:
            yield server


def _command(kind: str, port: int) -> list[str]:
    if kind == "waitress":
        return [sys.executable, "-m", "loadtest.server_app", str(port)]
    conf = ["-c", "python:chatstream_flask.serving.gunicorn_conf"]
    return [
        sys.executable,
        "-m",
        "gunicorn",
        *conf,
        "--bind",
        f"127.0.0.1:{port}",
        "loadtest.server_app:app()",
    ]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SEC)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    deadline = time.monotonic() + START_SEC
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at start; see {folder / 'server.log'}")
        if health(url) is not None:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {START_SEC} s; see {folder / 'server.log'}")


def health(url: str) -> dict[str, Any] | None:
    """None if it does not answer that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)
            return data
    except (urllib.error.URLError, OSError):
        return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
