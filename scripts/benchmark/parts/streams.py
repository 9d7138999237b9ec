"""Every contender at each number of streams, in rotation, so that a slow phase of the machine affects all."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from ..added_wait import added_wait
from ..comparison import compare
from ..contender import Contender
from ..entry import ENGINE, ENTRIES
from ..gpu_busy import GpuBusy
from ..line_up import LineUp
from ..options import Options
from ..round import Round
from ..say import say
from ..settings import Settings
from ..table import table
from ..words import random_tokens

PROMPT_TOKENS = 64
WARM_UP_TOKENS = 8
ROOM = 256  # context lengths are rounded up to a multiple
NOT_INSTALLED = ("ModuleNotFoundError", "ImportError")
HTTP = "waitress"  # contender whose HTTP overhead is measured separately


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    with closing(LineUp()) as line_up, closing(GpuBusy(options.device)) as gpu_busy:
        line_up.start(options, settings)
        levels = [_level(streams, line_up, gpu_busy, options, settings) for streams in options.streams]
        idle = partial(added_wait, prompt_tokens=PROMPT_TOKENS, vocab_size=settings.shape.vocab_size)
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "levels": levels,
            "http_when_idle": line_up.attempt(HTTP, idle, "idle"),
            "left_out": line_up.left_out,
        }


def _level(
    streams: int, line_up: LineUp, gpu_busy: GpuBusy, options: Options, settings: Settings
) -> dict[str, Any]:
    random, when = Random(streams), f"at {streams} streams"
    for name in line_up.names:
        prompts = _prompts(random, streams, settings)
        line_up.attempt(name, partial(_prepare, prompts=prompts, new_tokens=options.new_tokens), when)
    rounds: dict[str, list[Round]] = {name: [] for name in line_up.names}
    for repeat in range(options.repeats):
        prompts = _prompts(random, streams, settings)
        play = partial(_play, prompts=prompts, new_tokens=options.new_tokens, gpu_busy=gpu_busy)
        for name in _rotated(line_up.names, repeat):
            if played := line_up.attempt(name, play, when):
                rounds[name].append(played)
                say(f"{streams} streams, round {repeat + 1}, {name}: {played.tokens_per_sec:.0f} tokens/s")
    kept = {name: rounds[name] for name in line_up.names}
    return {"streams": streams, "contenders": compare(kept, ENGINE)}


def _prepare(contender: Contender, prompts: list[list[int]], new_tokens: int) -> None:
    context_len = -(-(PROMPT_TOKENS + new_tokens) // ROOM) * ROOM
    contender.prepare(len(prompts), context_len)
    contender.play(prompts, min(WARM_UP_TOKENS, new_tokens))


def _play(contender: Contender, prompts: list[list[int]], new_tokens: int, gpu_busy: GpuBusy) -> Round:
    began = time.perf_counter()
    played = contender.play(prompts, new_tokens)
    return replace(played, gpu_busy=gpu_busy.between(began, time.perf_counter()))


def _prompts(random: Random, streams: int, settings: Settings) -> list[list[int]]:
    return [random_tokens(random, PROMPT_TOKENS, settings.shape.vocab_size) for _ in range(streams)]


def _rotated(names: list[str], repeat: int) -> list[str]:
    """Let another contender begin in each repeat."""
    first = repeat % len(names) if names else 0
    return names[first:] + names[:first]


def shown(result: dict[str, Any]) -> str:
    levels = result["levels"]
    names = [name for name in ENTRIES if any(name in level["contenders"] for level in levels)]
    parts = [
        "tokens/s of all streams together (speedup of the engine, median of the repeats)",
        table(["streams", *names], [_row(level, names, _rate) for level in levels]),
        "seconds to the first token, median of the streams",
        table(["streams", *names], [_row(level, names, _first_token) for level in levels]),
    ]
    if same := _same_tokens(levels):
        parts.append(f"tokens equal to the engine's at the same position: {same}")
    if idle := result["http_when_idle"]:
        parts.append(
            f"HTTP adds {idle['added_ms']:.1f} ms to the first token of an idle server "
            f"({idle['http_ms']:.1f} ms instead of {idle['engine_ms']:.1f} ms)"
        )
    left_out = result["left_out"]
    parts += [f"left out: {name}: {reason}" for name, reason in left_out.items()]
    if any(word in reason for reason in left_out.values() for word in NOT_INSTALLED):
        parts.append("`scripts/bench --install` installs the packages that contenders need")
    return "\n".join(parts)


def _same_tokens(levels: list[dict[str, Any]]) -> str:
    """Return the fractions at the number of streams where they are lowest."""
    shares: dict[str, float] = {}
    for level in levels:
        for name, summary in level["contenders"].items():
            if name != ENGINE and "same_tokens" in summary:
                shares[name] = min(summary["same_tokens"], shares.get(name, 1.0))
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _row(level: dict[str, Any], names: list[str], cell: Any) -> list[str]:
    contenders = level["contenders"]
    return [str(level["streams"]), *(cell(contenders[n]) if n in contenders else "-" for n in names)]


def _rate(summary: dict[str, Any]) -> str:
    ratio = f" ({summary['ratio']:.2f}x)" if "ratio" in summary else ""
    return f"{summary['tokens_per_s']:.0f}{ratio}"


def _first_token(summary: dict[str, Any]) -> str:
    return f"{summary['first_token_s']:.3f}"
