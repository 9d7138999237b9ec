"""vLLM's CPU build, from an environment of its own."""

from __future__ import annotations

import math
import os

from .launch import Launch
from .server import GB, MODEL_NAME, Server


class Vllm(Server):
    """vLLM with all cores that this process may use, and room for the keys and values of all slots."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch)
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        self.environ |= {
            "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(launch.key_value_bytes / GB)),
            "VLLM_CPU_OMP_THREADS_BIND": cores,
            "VLLM_NO_USAGE_STATS": "1",
            "PYTHONPATH": "",
        }

    def command(self, port: int) -> list[str]:
        launch = self.launch
        return [
            *(
                launch.python,
                "-m",
                "vllm.entrypoints.openai.api_server",
                "--model",
                launch.settings.model_folder,
            ),
            *("--served-model-name", MODEL_NAME, "--dtype", launch.precision),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--max-model-len", str(launch.context_len), "--max-num-seqs", str(launch.slots)),
        ]
