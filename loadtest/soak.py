"""Mixed load for a long time; afterwards the server must hold no more resources than before."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.finisher import MAX_THREADS
from chatstream_flask.http.server_check import num_server_threads

from .generator import run_phase
from .growth import growth_goals
from .options import Options
from .plan import Plan
from .record import Phase
from .result import Goal, Result, Run
from .server import Server, health, servers_under_test
from .summary import summarise
from .visitor import Habits

WARM_UP_SEC = 30.0  # until threads, buffers and caches have been created
FORGET_SEC = 30.0  # conversations expire so soon that their removal can be checked
IDLE_SEC = 120.0  # within which the server must become idle
SAMPLE_SEC = 5.0
TIMES_CAPACITY = 4.0  # at the peak of the spike
MEAN_WORDS = 20
HABITS = Habits(max_turns=6, think_sec=0.5, regenerate=0.1, clear=0.1, leave=0.15)
PASSERS_BY = Habits(max_turns=2, think_sec=0.2, regenerate=0.1, clear=0.1, leave=0.2)
MAX_RSS_GROWTH_KIB = 16 * 1024
OTHER_THREADS = 8  # workers, watchdog, callbacks, leases, the server's own
ALLOWED = {  # increase allowed after the load
    "open_files": 0,
    "conversation_files": 0,
    "rss_kib": MAX_RSS_GROWTH_KIB,
    "generation_threads_lost": 0,
    "slots_missing": 0,
    "running": 0,
    "waiting": 0,
}


def run_soak(options: Options, folder: Path) -> Result:
    assert options.soak is not None
    result = Result("Soak", "seconds", conditions=options.conditions() | {"soak": options.soak})
    settings = options.settings(folder, forget_sec=FORGET_SEC)
    for server in servers_under_test(options.kinds, None, settings):
        own = folder / server.kind
        _load(server, options, own / "warm-up", WARM_UP_SEC)
        before = held_when_idle(server)
        with Sampler(server) as sampler:
            phase = _load(server, options, own / "soak", options.soak)
        after = held_when_idle(server)
        result.runs.append(Run(server.kind, "soak", options.soak, summarise(phase, options.warm_up)))
        result.targets.append(_threads_goal(server, before["threads"], after["threads"]))
        result.targets += [_goal(server.kind, name, before[name], after[name]) for name in ALLOWED]
        result.targets += growth_goals(server.kind, sampler.points, phase)
        result.series[server.kind] = sampler.points
    return result


def _load(server: Server, options: Options, folder: Path, seconds: float) -> Phase:
    """Load the server with returning users, and with one-time visitors at up to four times its capacity."""
    replies_per_sec = options.running * options.tokens_per_sec / MEAN_WORDS
    plan = Plan(
        records=str(folder / "records.jsonl"),
        model=options.model,
        duration_sec=seconds,
        num_users=options.running,
        rate=TIMES_CAPACITY * replies_per_sec,
        profile="spike",
        habits=HABITS,
        arrival_habits=PASSERS_BY,
        seed=options.seed,
    )
    return run_phase(plan, server.url, folder)


def held_when_idle(server: Server) -> dict[str, float]:
    """Count the server's resources once it is idle and its conversations have expired and are purged."""
    deadline = time.monotonic() + IDLE_SEC
    while (state := _state(server)) and (state["running"] or state["waiting"]):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    time.sleep(FORGET_SEC + 2)
    server.purge()
    return {**server.held(), **_state(server)}


def _state(server: Server) -> dict[str, float]:
    """Return the state from `/health/ready`; a server that is not ready counts as having lost everything."""
    data = health(server.url)
    if data is None:
        return {
            "generation_threads_lost": 1,
            "slots_missing": server.settings.num_running,
            "running": 0,
            "waiting": 0,
        }
    threads = data["threads"]
    return {
        "generation_threads_lost": sum(thread["fault"] is not None for thread in threads),
        "slots_missing": server.settings.num_running - sum(thread["slots"] for thread in threads),
        "running": data["running"],
        "waiting": data["waiting"],
    }


def _goal(server: str, name: str, before: float, after: float) -> Goal:
    most = before + ALLOWED[name]
    return Goal(f"{server}: {name}", f"{before:g} -> {after:g}", f"<= {most:g}", after <= most)


def _threads_goal(server: Server, before: float, after: float) -> Goal:
    """Return the goal that no thread has died and that the thread pools keep to their limits."""
    settings = server.settings
    engine = EngineConfig(max_running=settings.num_running, max_queue_size=settings.num_waiting)
    most = num_server_threads([engine]) + min(settings.num_running, MAX_THREADS) + OTHER_THREADS
    is_met = before <= after <= most
    return Goal(f"{server.kind}: threads", f"{before:g} -> {after:g}", f"{before:g} to {most}", is_met)


class Sampler:
    """Thread that records the server's resources every few seconds."""

    def __init__(self, server: Server) -> None:
        self.points: list[dict[str, float]] = []
        self._server = server
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loadtest-sampler")

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        began_at = time.monotonic()
        while True:
            self.points.append({"at": time.monotonic() - began_at, **self._server.held()})
            if self._is_over.wait(SAMPLE_SEC):
                return
