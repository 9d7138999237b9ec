"""Cost of a longer context: the engine's tokens/s per stream, by context length and number of streams."""

from __future__ import annotations

import statistics
from typing import Any

from ..actor_process import ActorProcess
from ..options import Options
from ..say import say
from ..settings import Settings
from ..table import table

CONTEXT_LENS = (64, 256, 1024, 2048, 4096)
NEW_TOKENS = 32


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    with ActorProcess("benchmark.steady_decode", "SteadyDecode", settings) as decode:
        lines = [_line(streams, decode, options.repeats) for streams in options.growth_streams]
        return {"context_lens": CONTEXT_LENS, "lines": lines}


def _line(streams: int, decode: ActorProcess, repeats: int) -> dict[str, Any]:
    decode.call("prepare", streams=streams, longest=CONTEXT_LENS[-1], new_tokens=NEW_TOKENS)
    rates = []
    for context_len in CONTEXT_LENS:
        decode.call("compute_prompts", context_len=context_len)
        tried = [
            decode.call("measure", context_len=context_len, new_tokens=NEW_TOKENS)["tokens_per_s"]
            for _ in range(repeats)
        ]
        rates.append(round(statistics.median(tried) / streams, 2))
        say(f"{streams} streams, context {context_len}: {rates[-1]:.1f} tokens/s per stream")
    return {"streams": streams, "tokens_per_s_per_stream": rates}


def shown(result: dict[str, Any]) -> str:
    rows = [
        [str(line["streams"]), *(f"{rate:.1f}" for rate in line["tokens_per_s_per_stream"])]
        for line in result["lines"]
    ]
    head = ["streams", *(f"{n} tokens" for n in result["context_lens"])]
    return "\n".join(["tokens/s per stream of the engine, by context length", table(head, rows)])
