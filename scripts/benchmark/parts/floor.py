"""Decode steps of the engine compared with their lower bound: bytes to read / memory bandwidth."""

from __future__ import annotations

import statistics
from typing import Any

from ..actor_process import ActorProcess
from ..options import Options
from ..say import say
from ..settings import Settings
from ..table import table

STREAMS = (1, 4, 8, 16, 32)
NEW_TOKENS = 64
CONTEXT_LEN = 64  # before the first new token


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    with (
        ActorProcess("benchmark.bandwidth", "Bandwidth", settings) as bandwidth,
        ActorProcess("benchmark.steady_decode", "SteadyDecode", settings) as decode,
    ):
        return {
            "levels": [_level(n, bandwidth, decode, options, settings) for n in options.streams or STREAMS]
        }


def _level(
    streams: int, bandwidth: ActorProcess, decode: ActorProcess, options: Options, settings: Settings
) -> dict[str, Any]:
    """Measure one number of streams; bandwidth is measured each time, as it varies on a shared machine."""
    new_tokens = options.new_tokens or NEW_TOKENS
    decode.call("prepare", streams=streams, longest=CONTEXT_LEN, new_tokens=new_tokens)
    decode.call("compute_prompts", context_len=CONTEXT_LEN)
    decode.call("measure", context_len=CONTEXT_LEN, new_tokens=new_tokens)  # warm-up
    step_bytes = settings.shape.step_bytes(streams, CONTEXT_LEN + new_tokens / 2, settings.dtype)
    rounds = []
    for _ in range(options.repeats):
        speeds = bandwidth.call("measure")
        rate = decode.call("measure", context_len=CONTEXT_LEN, new_tokens=new_tokens)["tokens_per_s"]
        step_sec = streams / rate
        rounds.append(
            {
                **speeds,
                "step_ms": 1000 * step_sec,
                "share_of_copy": step_bytes / speeds["copy_bytes_per_s"] / step_sec,
                "share_of_read": step_bytes / speeds["read_bytes_per_s"] / step_sec,
            }
        )
        say(f"{streams} streams: a step takes {1000 * step_sec:.2f} ms")
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    return {"streams": streams, "step_bytes": step_bytes, **medians}


def shown(result: dict[str, Any]) -> str:
    head = ["streams", "MB a step", "copy GB/s", "read GB/s", "step ms", "share of copy", "share of read"]
    rows = [
        [
            str(level["streams"]),
            f"{level['step_bytes'] / 1e6:.0f}",
            f"{level['copy_bytes_per_s'] / 1e9:.1f}",
            f"{level['read_bytes_per_s'] / 1e9:.1f}",
            f"{level['step_ms']:.2f}",
            f"{level['share_of_copy']:.0%}",
            f"{level['share_of_read']:.0%}",
        ]
        for level in result["levels"]
    ]
    return "\n".join(
        ["decode steps of the engine and their lower bound: bytes to read / bandwidth", table(head, rows)]
    )
