"""Many concurrent streams: whether each keeps the mock's rate, and how late its chunks are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .generator import run_phase
from .options import Options
from .plan import ONE_QUESTION, Plan
from .record import RIGHT, Phase, Record
from .result import Goal, Result, Run
from .server import servers_under_test
from .summary import delays_sec, distribution, is_spoiled, summarise, words_per_sec

MAX_DELAY_MS = 100.0  # p99
MIN_RATE = 0.99  # of the mock's rate, for every stream
ASK_SEC = 1.0  # within which all requests are sent


def run_streams(options: Options, folder: Path) -> Result:
    assert options.streams is not None
    result = Result(f"{options.streams} streams at once", "streams", conditions=options.conditions())
    settings = options.settings(folder, num_running=options.streams, num_waiting=0)
    num_words = round(options.duration * options.tokens_per_sec)
    for server in servers_under_test(options.kinds, None, settings):
        own = folder / server.kind
        plan = Plan(
            records=str(own / "records.jsonl"),
            duration_sec=ASK_SEC,
            num_users=options.streams,
            words=(num_words, num_words),
            habits=ONE_QUESTION,
            seed=options.seed,
        )
        phase = run_phase(plan, server.url, own)
        summary = _summary(phase, options.tokens_per_sec)
        result.runs.append(Run(server.kind, f"{options.streams} streams", options.streams, summary))
        result.targets += goals_of(server.kind, summary, options.streams, options.tokens_per_sec)
    return result


def _summary(phase: Phase, per_sec: float) -> dict[str, object]:
    """Return the usual figures, the chunks' delays against the mock's schedule, and the streams' rates."""
    replies = _replies(phase)
    phase.ended_at = max(r.ended_at for r in replies)  # they asked in the first second, and then read
    all_began_at, first_ended_at = max(r.arrivals[0][0] for r in replies), min(r.ended_at for r in replies)
    together = [_between(all_began_at, first_ended_at, reply) for reply in replies]
    rates = sorted(words_per_sec(reply) for reply in together)
    return summarise(phase, 0.0) | {
        "num_streams": len(replies),
        "seconds_all_at_once": round(first_ended_at - all_began_at, 2),
        "delay": distribution(delay for reply in together for delay in delays_sec(reply, per_sec)),
        "slowest_stream_per_sec": round(rates[0], 3),
        "median_stream_per_sec": round(rates[len(rates) // 2], 3),
    }


def _between(begin: float, end: float, reply: Record) -> Record:
    """Cut the record to the time in which all streams were running."""
    return replace(reply, arrivals=[arrival for arrival in reply.arrivals if begin <= arrival[0] <= end])


def _replies(phase: Phase) -> list[Record]:
    replies = [r for r in phase.records if r.verdict == RIGHT and len(r.arrivals) > 1]
    if not replies:
        raise RuntimeError(f"no stream was completed: {[r.detail for r in phase.faults[:3]]}")
    return replies


def goals_of(server: str, summary: dict[str, object], num_streams: int, per_sec: float) -> list[Goal]:
    delay, slowest = summary["delay"], summary["slowest_stream_per_sec"]
    assert isinstance(delay, dict) and isinstance(slowest, float)
    num, late, together = summary["num_streams"], delay["p99"], summary["seconds_all_at_once"]
    assert isinstance(together, float)
    return [
        Goal(f"{server}: streams completed correctly", f"{num}", f"{num_streams}", num == num_streams),
        Goal(
            f"{server}: tokens/s of the slowest",
            f"{slowest:.2f}",
            f">= {MIN_RATE * per_sec:.2f}",
            slowest >= MIN_RATE * per_sec,
        ),
        Goal(f"{server}: seconds with all streams running", f"{together:.1f}", "> 0", together > 0),
        Goal(
            f"{server}: chunk delay p99",
            f"{late:.1f} ms (max {delay['max']:.1f})",
            f"< {MAX_DELAY_MS:g} ms",
            late < MAX_DELAY_MS,
        ),
        Goal(
            f"{server}: the generator itself, p99 late",
            f"{summary['generator_late']['p99']:.1f} ms",  # type: ignore[index]
            "<= 10 ms",
            not is_spoiled(summary),
        ),
    ]
