"""llama.cpp's server, from the package xllamacpp."""

from __future__ import annotations

import os

from .server import Server


class LlamaServer(Server):
    """llama.cpp's own server with continuous batching, in a Python process that does nothing else."""

    needs_gguf = True

    def command(self, port: int) -> list[str]:
        launch = self.launch
        assert launch.gguf is not None
        return [
            *(launch.python, "-m", "benchmark.servers.llama_server_process", launch.gguf, str(port)),
            *(str(launch.slots), str(launch.context_len), str(len(os.sched_getaffinity(0)))),
        ]
