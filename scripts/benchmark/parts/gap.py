"""Gaps between the tokens of running streams while a prompt of 4,000 tokens is computed."""

from __future__ import annotations

import statistics
from typing import Any

from ..actor_process import ActorProcess
from ..options import Options
from ..say import say
from ..settings import Settings
from ..table import table


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    with ActorProcess("benchmark.long_prompt", "LongPrompt", settings) as long_prompt:
        return {"levels": [_level(n, long_prompt, options.repeats) for n in options.gap_streams]}


def _level(streams: int, long_prompt: ActorProcess, repeats: int) -> dict[str, Any]:
    long_prompt.call("prepare", streams=streams)
    long_prompt.call("alone")  # warm-up
    rounds = []
    for _ in range(repeats):
        rounds.append({**long_prompt.call("alone"), **long_prompt.call("measure", streams=streams)})
        say(f"{streams} streams: the longest gap was {1000 * rounds[-1]['longest_gap_sec']:.0f} ms")
    ratios = [r["longest_gap_sec"] / r["gap_before_sec"] for r in rounds]
    chunks = [r["longest_gap_sec"] / r["chunk_sec"] for r in rounds]
    return {
        "streams": streams,
        **{name: statistics.median(r[name] for r in rounds) for name in rounds[0]},
        "gap_ratio": statistics.median(ratios),
        "gap_in_chunks": statistics.median(chunks),
    }


def shown(result: dict[str, Any]) -> str:
    head = ["streams", "gap before", "longest gap", "median stream", "one chunk", "gap/before", "gap/chunk"]
    head += ["first token", "alone"]
    rows = [
        [
            str(level["streams"]),
            _ms(level["gap_before_sec"]),
            _ms(level["longest_gap_sec"]),
            _ms(level["longest_gap_of_median_stream_sec"]),
            _ms(level["chunk_sec"]),
            f"{level['gap_ratio']:.1f}x",
            f"{level['gap_in_chunks']:.1f}x",
            _ms(level["first_token_sec"]),
            _ms(level["alone_sec"]),
        ]
        for level in result["levels"]
    ]
    title = "gaps between tokens of running streams while a prompt of 4,000 tokens arrives"
    return "\n".join([title, table(head, rows)])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
