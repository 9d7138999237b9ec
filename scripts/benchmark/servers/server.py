"""Server: one contender, a process group that answers OpenAI's `/v1/completions`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import psutil

from chatstream_flask.client import ServerProcess, free_port

from ..http_client import request_bytes
from .launch import Launch

MODEL_NAME = "bench"
START_SEC = 600
GB = 10**9


class Server:
    """A server in a process group of its own, stopped by SIGSTOP between rounds.

    Even a server that only waits for work may take time of the processor that the others need.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_gguf: ClassVar[bool] = False
    ready_path: ClassVar[str | None] = "/health"
    model_field: ClassVar[str | None] = MODEL_NAME  # None: the model's folder

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.environ = {"HF_HUB_OFFLINE": "1"}
        self.more_fields: dict[str, Any] = {"ignore_eos": True}
        self.start_sec = 0.0
        self._process: ServerProcess | None = None

    def command(self, port: int) -> list[str]:
        """Return the command that serves the model on this port."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server, wait until it is ready, and stop its processes until `awake`.

        :raises ServerFailed: it ended, or was not ready in time
        """
        began, port = perf_counter(), free_port()
        work = Path(self.launch.settings.folder, f"{type(self).__name__}-{self.launch.precision}")
        work.mkdir()  # of its own: two servers of this project cannot keep their conversations in one
        self._process = ServerProcess(self.command(port), port, work / "log", cwd=work, environ=self.environ)
        try:
            self._process.wait_until_ready(self.ready_path, START_SEC)
        except BaseException:  # also when this process is told to end
            self.stop()
            raise
        self.start_sec = perf_counter() - began
        self._send(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[int]:
        """Let the server run; yield its port."""
        assert self._process is not None
        self._send(signal.SIGCONT)
        try:
            yield self._process.port
        finally:
            self._send(signal.SIGSTOP)

    def request(self, prompt: str, new_tokens: int) -> bytes:
        """Return a request for a greedy, streamed reply of exactly this length."""
        return request_bytes(
            "/v1/completions",
            {
                "model": self.model_field or self.launch.settings.model_folder,
                "prompt": prompt,
                "max_tokens": new_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **self.more_fields,
            },
        )

    def memory(self) -> dict[str, float]:
        """Return the memory of all processes in GB; what they share counts once in `pss`."""
        assert self._process is not None
        parent: Any = psutil.Process(self._process.process.pid)  # type: ignore[no-untyped-call]
        infos = [process.memory_full_info() for process in (parent, *parent.children(recursive=True))]
        return {name: round(sum(getattr(i, name, 0) for i in infos) / GB, 3) for name in ("pss", "rss")}

    def stop(self) -> None:
        """End all processes, also those that survive their parent."""
        if self._process is not None:
            self._send(signal.SIGCONT)
            self._process.stop()
            with suppress(ProcessLookupError):  # none is left
                os.killpg(self._process.process.pid, signal.SIGKILL)
        self._process = None

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.process.poll() is None:
            os.killpg(self._process.process.pid, number)
