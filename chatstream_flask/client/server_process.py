"""ServerProcess: a server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType

from .ports import POLL_SEC, is_open

REQUEST_SEC = 10.0
STOP_SEC = 60.0
SHOWN_CHARS = 2000


class ServerFailed(RuntimeError):
    """A server ended while it started, or did not answer in time; the message has the end of its output."""


class ServerProcess:
    """A process that serves one port of 127.0.0.1, with its output in a file; stopped on leaving `with`."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `environ` is added to this process's environment."""
        self.port = port
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that `kill` reaches gunicorn's worker too
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, path: str | None = None, timeout_sec: float = 120.0) -> None:
        """Wait until a GET of `path` is answered without an error; without a path, until the port is open.

        :raises ServerFailed: the process ended, or is not ready within `timeout_sec`
        """
        deadline = time.monotonic() + timeout_sec
        while not self._is_ready(path):
            status = self.process.poll()
            if status is not None:
                raise ServerFailed(f"the server ended with status {status}: {self.output[-SHOWN_CHARS:]}")
            if time.monotonic() >= deadline:
                said = self.output[-SHOWN_CHARS:]
                raise ServerFailed(f"the server was not ready within {timeout_sec:.0f} s: {said}")
            time.sleep(POLL_SEC)

    def stop(self) -> None:
        """Send SIGTERM and wait for the end; kill a process that does not end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SEC)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the process and its children; does nothing once it has ended."""
        if self.process.poll() is None:
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_SEC)

    def _is_ready(self, path: str | None) -> bool:
        if path is None:
            return self.process.poll() is None and is_open(self.port)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SEC)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < HTTPStatus.BAD_REQUEST
        except (OSError, HTTPException):  # gunicorn listens before its worker has started
            return False
        finally:
            connection.close()
