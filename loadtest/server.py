"""The server under test, as a process of its own, and the resources that it uses."""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from chatstream_flask.client import ServerProcess, free_port

from .server_app import ServerSettings

REPOSITORY = Path(__file__).parents[1]
START_SEC = 120.0


@dataclass(frozen=True)
class Server:
    """The server under test."""

    kind: str
    url: str
    process: psutil.Process | None  # None for a server at a URL
    settings: ServerSettings
    environ: dict[str, str]

    def held(self) -> dict[str, int]:
        """Count the threads, memory and files that its processes use, and its conversation files."""
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
        """Delete expired conversations, as an operator's cron job does."""
        command = [sys.executable, "-m", "flask", "--app", "loadtest.server_app:app", "chatstream", "purge"]
        subprocess.run(command, env=self.environ, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running_server(kind: str, settings: ServerSettings) -> Iterator[Server]:
    """Run a server until the block ends; its output is in `server.log` of its folder."""
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environ = settings.to_environ() | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    log = folder / "server.log"
    with ServerProcess(_command(kind, port), port, log, cwd=REPOSITORY, environ=environ) as server:
        server.wait_until_ready("/health/ready", START_SEC)
        process = psutil.Process(server.process.pid)
        yield Server(kind, f"http://127.0.0.1:{port}", process, settings, os.environ | environ)


def servers_under_test(kinds: list[str], url: str | None, settings: ServerSettings) -> Iterator[Server]:
    """Run one server after the other, each in a folder of its own; if `url` is given, yield only that one."""
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


def health(url: str) -> dict[str, Any] | None:
    """Return the body of `/health/ready`; None unless the server is ready."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)
            return data
    except (urllib.error.URLError, OSError):
        return None
