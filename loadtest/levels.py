"""Runs of the same conversations at several loads, one after the other."""

from __future__ import annotations

from pathlib import Path

from .generator import run_phase
from .options import Options
from .plan import Plan
from .result import Result, Run
from .server import servers_under_test
from .summary import summarise
from .visitor import Habits


def run_levels(options: Options, folder: Path) -> Result:
    is_open = bool(options.rate)
    result = Result("Load test", "visitors/s" if is_open else "users", conditions=options.conditions())
    habits = Habits(
        max_turns=options.turns,
        think_sec=options.think,
        regenerate=options.regenerate,
        clear=options.clear,
        leave=options.leave,
    )
    for server in servers_under_test(options.kinds, options.url, options.settings(folder)):
        for load in options.rate or options.users:
            name = f"{load:g} {result.load_name}"
            own = folder / f"{server.kind}-{load:g}"
            plan = Plan(
                records=str(own / "records.jsonl"),
                model=options.model,
                duration_sec=options.duration,
                num_users=0 if is_open else int(load),
                rate=load if is_open else 0.0,
                profile=options.profile,
                habits=habits,
                arrival_habits=habits,
                seed=options.seed,
            )
            phase = run_phase(plan, server.url, own)
            result.runs.append(Run(server.kind, name, load, summarise(phase, options.warm_up)))
    return result
