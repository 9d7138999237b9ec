"""Measure the capacity; then load the server with 1, 2 and 4 times that, by open arrival."""

from __future__ import annotations

from pathlib import Path

from .generator import run_phase
from .options import Options
from .plan import ONE_QUESTION, Plan
from .result import Goal, Result, Run
from .server import Server, servers_under_test
from .summary import is_spoiled, summarise

TIMES = (1, 2, 4)
MIN_SHARE = 0.98  # of the best goodput, at the highest load
MAX_REFUSED_MS = 50.0  # p99
MAX_GAP_GROWTH = 1.1  # of the p99 token gap of running streams, compared with no other load
WORDS = (20, 20)  # in each message, and in its echo


def run_overload(options: Options, folder: Path) -> Result:
    result = Result("Overload", "times the capacity", conditions=options.conditions())
    for server in servers_under_test(options.kinds, options.url, options.settings(folder)):
        runs = _runs(server, options, folder / server.kind)
        result.runs += runs
        result.targets += goals_of(server.kind, runs)
    return result


def _runs(server: Server, options: Options, folder: Path) -> list[Run]:
    """Measure with as many users as slots, with every place taken, and at multiples of that capacity."""

    def measure(name: str, load: float | None, num_users: int = 0, rate: float = 0.0) -> Run:
        own = folder / name.replace(" ", "-")
        plan = Plan(
            records=str(own / "records.jsonl"),
            model=options.model,
            duration_sec=options.duration,
            num_users=num_users,
            rate=rate,
            words=WORDS,
            habits=ONE_QUESTION,
            seed=options.seed,
        )
        return Run(server.kind, name, load, summarise(run_phase(plan, server.url, own), options.warm_up))

    alone = measure("alone", None, num_users=options.running)
    full = measure("all places taken", None, num_users=options.running + options.waiting)
    capacity = full.summary["replies_per_sec"]
    if not capacity:
        raise RuntimeError(f"no reply was completed, so the capacity is unknown; see {folder}")
    return [alone, full, *(measure(f"{times} x capacity", times, rate=times * capacity) for times in TIMES)]


def goals_of(server: str, runs: list[Run]) -> list[Goal]:
    alone, highest = runs[0].summary, runs[-1].summary
    best = max(run.summary["tokens_per_sec"] for run in runs)
    share = highest["tokens_per_sec"] / best
    refused = highest["REFUSED"].get("p99", 0.0)
    gap_alone, gap = alone["ITL"].get("p99", 0.0), highest["ITL"].get("p99", 0.0)
    late = max(run.summary["generator_late"].get("p99", 0.0) for run in runs)
    times = f"{server}: at {TIMES[-1]} x capacity"
    return [
        Goal(f"{times}, goodput of the best", f"{share:.1%}", f">= {MIN_SHARE:.0%}", share >= MIN_SHARE),
        Goal(
            f"{times}, refusals p99",
            f"{refused:.1f} ms",
            f"< {MAX_REFUSED_MS:g} ms",
            refused < MAX_REFUSED_MS,
        ),
        Goal(
            f"{times}, token gaps p99",
            f"{gap:.1f} ms",
            f"<= {MAX_GAP_GROWTH * gap_alone:.1f} ms ({gap_alone:.1f} alone + {MAX_GAP_GROWTH - 1:.0%})",
            gap <= MAX_GAP_GROWTH * gap_alone,
        ),
        Goal(
            f"{server}: the generator itself, p99 late",
            f"{late:.1f} ms",
            "<= 10 ms",
            not any(is_spoiled(run.summary) for run in runs),
        ),
    ]
