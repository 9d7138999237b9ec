"""Texts of a profile, a plan and a check for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from .check import TOLERANCE, Comparison
from .plan import CURVE, Plan, gib
from .profile import Profile


def profile_text(profile: Profile) -> str:
    """Return the measurements, one line for each number of threads."""
    lines = [
        f"{profile.model} on {profile.device}: weights of {gib(profile.weights_bytes)}, "
        f"{profile.kv_bytes_per_token / 1024:.3g} KiB of keys and values per token"
    ]
    for costs in profile.costs:
        rows = sorted({rows for rows, _, _ in costs.decode})
        steps = ", ".join(f"{r}: {costs.decode_sec(r, [512]) * 1000:.1f}" for r in rows)
        chunk = profile.prefill_chunk_len
        lines.append(
            f"  {costs.num_threads} threads: a decode step takes (replies of 512 tokens: ms) {steps}; "
            f"{chunk} prompt tokens take {costs.prefill_sec((chunk, 0)) * 1000:.0f} ms; "
            f"sending a token takes {costs.token_sec * 1e6:.0f} us"
        )
    http = f"  HTTP takes {profile.request_sec * 1000:.1f} ms per request"
    lines.append(f"{http}, and delays the steps by {profile.turn_sec * 1000:.1f} ms")
    return "\n".join(lines)


def plan_text(plan: Plan) -> str:
    """Return the plan with a table of its curve and the configurations that were tried."""
    w, point, config = plan.workload, plan.point, plan.config
    needed = w.turns_per_sec
    lines = [
        f"Load: {w.daily_users:g} users a day with {w.turns:g} turns, {w.peak_share:.0%} of them in the "
        f"busiest hour: {needed:.3g} turns/s, {needed * w.reply_tokens:.3g} tokens/s",
        f"Processes: {plan.num_processes}, each on its own device, with",
        f"  num_of_concurrent_executions={config.max_running}, "
        f"num_of_generation_threads={config.num_of_generation_threads}, "
        f"max_queue_size={config.max_queue_size}, context_len={config.context_len}",
        f"Memory: {gib(plan.used_bytes)} of {gib(plan.memory_bytes)} per device (weights, keys and values); "
        f"{plan.max_slots} slots would fit",
        f"In the busiest hour, 95 % of the turns wait at most {_sec(point.queue_sec_p95)} in the queue and "
        f"get their first token within {_sec(point.first_token_sec_p95)}; "
        f"{point.refused_share:.1%} are refused",
        "",
        " load  turns/s  refused   queue (s)      first token (s)      whole reply (s)   tokens/s",
        "                         p50    p95     p50    p95    p99     p50     p95   each    all",
    ]
    for load, p in zip(CURVE, plan.curve, strict=True):
        lines.append(
            f"{load:>4.0%} {p.turns_per_sec * plan.num_processes:>8.3g} {p.refused_share:>7.1%} "
            f"{p.queue_sec_p50:>6.2f} {p.queue_sec_p95:>6.2f}  "
            f"{p.first_token_sec_p50:>6.2f} {p.first_token_sec_p95:>6.2f} {p.first_token_sec_p99:>6.2f}  "
            f"{p.total_sec_p50:>6.1f}  {p.total_sec_p95:>6.1f} {p.reply_tokens_per_sec_p50:>6.1f} "
            f"{p.tokens_per_sec * plan.num_processes:>6.0f}"
        )
    lines += ["", "Configurations tried, with the highest load that one process serves within the goals:"]
    for candidate in plan.tried:
        tried = candidate.config
        lines.append(
            f"  {tried.max_running:>4} slots, {tried.num_of_generation_threads} threads: "
            f"{candidate.turns_per_sec:.3g} turns/s, {candidate.num_processes(needed)} processes needed"
        )
    return "\n".join(lines)


def check_text(comparisons: Sequence[Comparison]) -> str:
    """Return a table of predicted and real measures."""
    lines = [" load  measure                predicted      real   error"]
    for it in comparisons:
        verdict = "" if it.is_within else f"  more than {TOLERANCE:.0%}"
        lines.append(
            f"{it.load:>5.0%}  {it.measure:<20} {it.predicted:>11.3f} {it.real:>9.3f} {it.error:>+7.0%}"
            f"{verdict}"
        )
    num_within = sum(it.is_within for it in comparisons)
    lines.append(f"{num_within} of {len(comparisons)} within {TOLERANCE:.0%}")
    return "\n".join(lines)


def _sec(seconds: float) -> str:
    return f"{seconds:.2g} s"
