"""Contender: `transformers serve --continuous-batching`, over HTTP."""

from __future__ import annotations

import os
from typing import Any

from transformers.cli.serve import Serve

from chatstream_flask.client import free_port, wait_until_open

from ..settings import Settings
from .batching import num_blocks

START_SEC = 60
MAX_STREAMS = 64


class ServeContender:
    """One server for any number of streams: the command's class in a thread, as in transformers' tests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._port = 0
        self._serve: Any = None

    def prepare(self, streams: int, context_len: int) -> int:
        """Start the server unless it runs; return its port."""
        if self._serve is None:
            os.environ["HF_HUB_OFFLINE"] = "1"
            self._port = free_port()
            self._serve = Serve(
                force_model=self._settings.model_folder,
                continuous_batching=True,
                device=self._settings.device,
                dtype=self._settings.dtype,
                cb_num_blocks=num_blocks(MAX_STREAMS, context_len),
                host="127.0.0.1",
                port=self._port,
                non_blocking=True,
            )
            wait_until_open(self._port, START_SEC)
        return self._port

    def close(self) -> None:
        if self._serve is not None:
            self._serve.kill_server()
        self._serve = None
