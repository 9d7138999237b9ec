"""Picture of a plan, drawn with matplotlib (the extra `plan`)."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .plan import CURVE, Plan

SUFFIXES = (".svg", ".png", ".pdf")


def check_picture(path: str) -> None:
    """Raise ConfigError if no picture can be written to this path; called before anything is measured."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"the file name of a picture must end in {', '.join(SUFFIXES)}, not {path}")
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install chatstream-flask[plan]") from error


def draw(plan: Plan, path: str) -> None:
    """Write a picture of the plan's curve: waiting times, token rates and refused turns."""
    from matplotlib.figure import Figure

    turns = [plan.workload.turns_per_sec * load for load in CURVE]
    figure = Figure(figsize=(9, 7), layout="constrained")
    waits, rates = figure.subplots(2, 1, sharex=True)
    for name, label in (("p50", "half"), ("p95", "95 %"), ("p99", "99 %")):
        seconds = [getattr(point, f"first_token_sec_{name}") for point in plan.curve]
        waits.plot(turns, seconds, marker="o", label=f"first token, {label} of the turns")
    waits.plot(turns, [p.queue_sec_p95 for p in plan.curve], "--", color="gray", label="queue, 95 %")
    waits.axhline(plan.goals.max_first_token_sec, color="red", linewidth=0.8, label="goal")
    waits.set_ylabel("seconds")
    waits.set_yscale("symlog", linthresh=1.0)
    rates.plot(
        turns, [p.tokens_per_sec * plan.num_processes for p in plan.curve], marker="o", label="tokens/s"
    )
    rates.set_ylabel("tokens/s, all replies")
    rates.set_ylim(bottom=0)
    rates.set_xlabel("turns/s")
    refused = rates.twinx()
    refused.plot(turns, [100 * p.refused_share for p in plan.curve], "s--", color="red", label="refused")
    refused.set_ylabel("refused (%)", color="red")
    refused.set_ylim(0, max(5.0, *(110 * p.refused_share for p in plan.curve)))
    for axes in (waits, rates):
        axes.axvline(plan.workload.turns_per_sec, color="green", linewidth=0.8, label="busiest hour")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize="small")
    config = plan.config
    figure.suptitle(
        f"{plan.workload.daily_users:g} users a day: {plan.num_processes} x "
        f"{config.max_running} slots, {config.num_of_generation_threads} worker threads"
    )
    figure.savefig(path)
