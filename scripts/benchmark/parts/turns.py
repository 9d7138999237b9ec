"""Time to the first token of turn 1 and turn 5, with and without the cached keys and values."""

from __future__ import annotations

import statistics
from typing import Any

from ..actor_process import ActorProcess
from ..options import Options
from ..say import say
from ..settings import Settings
from ..table import table


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    with ActorProcess("benchmark.turn_chat", "TurnChat", settings) as chat:
        chat.call("measure")  # warm-up
        rounds = []
        for repeat in range(options.repeats):
            rounds.append(chat.call("measure"))
            say(f"five turns, round {repeat + 1}")
    turns = {
        name: {
            **rounds[-1][name],
            "first_token_ms": round(statistics.median(r[name]["first_token_ms"] for r in rounds), 2),
        }
        for name in rounds[0]
    }
    ratios = [r["turn 5, nothing kept"]["first_token_ms"] / r["turn 5"]["first_token_ms"] for r in rounds]
    return {"turns": turns, "ratio": round(statistics.median(ratios), 2)}


def shown(result: dict[str, Any]) -> str:
    rows = [
        [name, f"{turn['first_token_ms']:.1f} ms", str(turn["prompt_tokens"]), str(turn["cached_tokens"])]
        for name, turn in result["turns"].items()
    ]
    title = f"time to the first token in a conversation; the cache makes turn 5 {result['ratio']:.1f}x faster"
    return "\n".join([title, table(["", "first token", "prompt tokens", "of them cached"], rows)])
