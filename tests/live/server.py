"""Servers in processes of their own, and the state that their test app reports."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import requests

from chatstream_flask.client import ServerProcess, free_port

from .client import TIMEOUT_SEC, wait_until

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent

alive: list[Server] = []  # so that the report of a failed test can show their output


class Server(ServerProcess):
    """A server that keeps its output and all files of its app in `folder`; killed on leaving `with`."""

    def __init__(
        self, command: list[str], port: int, folder: Path, environ: dict[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        common = {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(TESTS)]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # several servers share the machine's cores
        }
        super().__init__(command, port, folder / "log", cwd=folder, environ=common | (environ or {}))
        alive.append(self)

    def __enter__(self) -> Server:
        return self

    # -- its life --------------------------------------------------------------------------------------

    def wait_until_ready(self, path: str | None = "/state", timeout_sec: float = 120.0) -> None:
        super().wait_until_ready(path, timeout_sec)

    def terminate(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(timeout=TIMEOUT_SEC)
        self.kill()
        return status

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        if self in alive:
            alive.remove(self)
        super().kill()

    # -- its app ---------------------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, int]:
        state: dict[str, int] = self._ask("GET", "/state").json()
        return state

    def has(self, **counts: int) -> bool:
        state = self.state
        return all(state[name] == count for name, count in counts.items())

    def check_idle(self) -> None:
        wait_until(lambda: self.has(accepted=0))
        assert self._ask("POST", "/check_idle").status_code == 200
        assert self.has(held=0)

    def hold(self) -> None:
        assert self._ask("POST", "/hold").ok

    def set_fault(self, **fault: Any) -> None:
        """Let the model have this fault (a `Faults`) from now on; without arguments none."""
        assert self._ask("POST", "/faults", fault).ok

    def release(self) -> None:
        assert self._ask("POST", "/release").ok

    def outcomes(self, client: str) -> list[dict[str, Any]]:
        """Return the outcomes that the callback got for this client; works after the server has ended."""
        file = self.folder / "outcomes"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [outcome for outcome in whole if outcome["client"] == client]

    def outcome(self, client: str) -> dict[str, Any]:
        """Wait for the client's outcome, of which there must be exactly one."""
        wait_until(lambda: bool(self.outcomes(client)))
        (outcome,) = self.outcomes(client)
        return outcome

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        with requests.Session() as session:
            url = f"http://127.0.0.1:{self.port}{path}"
            return session.request(method, url, json=body, timeout=TIMEOUT_SEC)


def start(
    kind: str,
    folder: Path,
    *,
    port: int | None = None,
    is_preloaded: bool = False,
    max_files: int | None = None,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Server:
    """Serve live_apps; `options` are passed to ChatStream, and without any the demo model is served."""
    port = port or free_port()
    command = waitress_command(port) if kind == "waitress" else gunicorn_command(port, is_preloaded)
    if max_files is not None:
        command = ["bash", "-c", f'ulimit -n {max_files}; exec "$@"', "bash", *command]
    wanted = {"folder": str(folder), "config": config or {}, "options": {"temperature": 0.0} | options}
    server = Server(command, port, folder, {"LIVE_APP": json.dumps(wanted)})
    try:
        server.wait_until_ready()
    except BaseException:
        server.kill()
        raise
    return server


def start_mock(kind: str, folder: Path, mock_params: dict[str, Any], **options: Any) -> Server:
    return start(kind, folder, use_mock_response=True, mock_params=mock_params, **options)


def waitress_command(port: int) -> list[str]:
    return [sys.executable, "-m", "live.live_apps", str(port)]


def gunicorn_command(port: int, is_preloaded: bool) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "-c", "python:chatstream_flask.serving.gunicorn_conf"),
        *("live.live_apps:create_app()", "--bind", f"127.0.0.1:{port}"),
        *(["--preload"] if is_preloaded else []),
    ]
