"""llama.cpp's server in this process: `llama_server_process GGUF PORT SLOTS CONTEXT_LEN THREADS`."""

from __future__ import annotations

import signal
import sys
from typing import Any


def main() -> None:
    import xllamacpp  # from scripts/requirements-bench.txt

    gguf, *numbers = sys.argv[1:]
    port, slots, context_len, threads = map(int, numbers)
    params: Any = xllamacpp.CommonParams()
    params.model.path = gguf
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context_len
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)  # listens as long as it is referred to
    print(f"llama.cpp listens on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # in llama.cpp's threads too
    main()
