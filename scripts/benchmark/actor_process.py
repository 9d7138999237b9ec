"""ActorProcess: the parent's handle of an actor, which is stopped except during calls."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .settings import Settings

CALL_SEC = 1200
END_SEC = 15


class ActorFailed(RuntimeError):
    """An actor's call failed; the message says why."""


class ActorProcess:
    """A process stopped by SIGSTOP between calls, as even a loop that only waits for work takes CPU time."""

    def __init__(self, module: str, name: str, settings: Settings, python: str = sys.executable) -> None:
        command = [python, "-m", "benchmark.actor", module, name, json.dumps(asdict(settings))]
        folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        try:
            self._answer()
            self._process.send_signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ActorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the actor's object.

        :raises ActorFailed: the method raised, the process ended, or the call timed out
        """
        with self.awake():
            assert self._process.stdin is not None
            line = json.dumps({"method": method, "arguments": arguments})
            try:
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise ActorFailed(self._last_words()) from None
            return self._answer()

    @contextmanager
    def awake(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.communicate(timeout=END_SEC)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], CALL_SEC)[0]:
            raise ActorFailed(f"no response within {CALL_SEC} s")
        line = self._process.stdout.readline()
        if not line:
            raise ActorFailed(self._last_words())
        told = json.loads(line)
        if "error" in told:
            raise ActorFailed(told["error"])
        return told["result"]

    def _last_words(self) -> str:
        status = self._process.wait(END_SEC)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with {status}: {lines[-1] if lines else 'no output'}"
