"""Command-line options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arrival import PROFILES
from .server_app import ServerSettings

KINDS = {"waitress": ["waitress"], "gunicorn": ["gunicorn"], "both": ["waitress", "gunicorn"]}
DESCRIPTION = "Load test of the HTTP API: simulated visitors hold conversations and check every reply."
DEFAULT_USERS = [4, 8, 16, 32]
DEFAULT_SEC = {"overload": 30.0, "streams": 30.0}  # per run; 20 s in the other modes


class Options(argparse.Namespace):
    """Parsed command line, with defaults filled in."""

    server: str
    url: str | None
    model: str
    users: list[int]
    rate: list[float] | None
    profile: str
    duration: float
    warm_up: float
    think: float
    turns: int
    regenerate: float
    clear: float
    leave: float
    running: int
    waiting: int
    tokens_per_sec: float
    overload: bool
    streams: int | None
    soak: float | None
    seed: int
    output: Path

    @property
    def kinds(self) -> list[str]:
        return KINDS[self.server]

    def settings(self, folder: Path, **changes: Any) -> ServerSettings:
        given: dict[str, Any] = {
            "model": self.model,
            "num_running": self.running,
            "num_waiting": self.waiting,
            "tokens_per_sec": self.tokens_per_sec,
            "folder": str(folder),
        }
        return ServerSettings(**given | changes)

    def conditions(self) -> dict[str, Any]:
        names = (
            "model",
            "running",
            "waiting",
            "tokens_per_sec",
            "duration",
            "warm_up",
            "think",
            "profile",
            "seed",
        )
        return {name: getattr(self, name) for name in names}


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="scripts/loadtest", description=DESCRIPTION)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--users", type=_count, nargs="+", help="closed arrival: one run for each of these numbers of users"
    )
    what.add_argument(
        "--rate",
        type=_positive,
        nargs="+",
        help="open arrival: one run for each of these rates (visitors per second)",
    )
    what.add_argument(
        "--overload",
        action="store_true",
        help="measure the capacity, then load the server with 1, 2 and 4 times that",
    )
    what.add_argument("--streams", type=_count, metavar="N", help="N concurrent streams of the mock model")
    what.add_argument(
        "--soak",
        type=_positive,
        metavar="SEC",
        help="mixed load for SEC seconds, then check for leaked resources",
    )
    under_test = parser.add_argument_group("the server")
    under_test.add_argument("--server", choices=KINDS, default="waitress")
    under_test.add_argument(
        "--url", help="test a server that is already running, with the chat API at this URL"
    )
    under_test.add_argument(
        "--model",
        choices=["mock", "demo", "other"],
        default="mock",
        help="mock: echoes each message, so every fault is seen; other: the model at --url; may forget names",
    )
    under_test.add_argument("--running", type=_count, default=16, help="num_of_concurrent_executions")
    under_test.add_argument("--waiting", type=_count, default=32, help="max_queue_size")
    under_test.add_argument(
        "--tokens-per-sec", type=_positive, default=20.0, help="speed of the mock's replies"
    )
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--profile",
        choices=PROFILES,
        default="steady",
        help="how the number of users, or the rate, changes over a run",
    )
    load.add_argument("--duration", type=_positive, help="seconds per run; with --streams, per reply")
    load.add_argument(
        "--warm-up", type=_not_negative, help="seconds at the start of a run that are not measured"
    )
    load.add_argument("--think", type=_not_negative, default=1.0, help="mean seconds between turns")
    load.add_argument("--turns", type=_count, default=5, help="turns per conversation")
    for name in ("regenerate", "clear", "leave"):
        load.add_argument(f"--{name}", type=_probability, default=0.05, help="probability in each turn")
    load.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("loadtest-report"), help="folder for the report")
    options = parser.parse_args(arguments, namespace=Options())
    _complete(parser, options)
    return options


def _complete(parser: argparse.ArgumentParser, options: Options) -> None:
    mode = "overload" if options.overload else "streams" if options.streams else "other"
    options.users = options.users or DEFAULT_USERS
    options.duration = options.duration or DEFAULT_SEC.get(mode, 20.0)
    if options.warm_up is None:
        options.warm_up = min(3.0, options.duration / 5)
    options.output = options.output.resolve()
    if options.url and not options.url.startswith("http://"):
        parser.error("--url must start with http://")
    if options.model == "other" and not options.url:
        parser.error("--model other needs --url, the server that serves it")
    if options.url and (options.streams or options.soak):
        parser.error("--streams and --soak start their own server and do not accept --url")
    if options.streams and options.model != "mock":
        parser.error("--streams needs --model mock, whose schedule delays are measured against")
    if options.warm_up >= options.duration:
        parser.error("--warm-up must be shorter than --duration")


def _positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return float(text)


def _not_negative(text: str) -> float:
    return float(text) and _positive(text)


def _probability(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text}")
    return float(text)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)
