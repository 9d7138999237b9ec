"""Every server with every workload, one precision after the other, in turn within each round."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from ..actor_process import ActorProcess
from ..comparison import compare
from ..entrant import SERVERS, Entrant, entrants
from ..line_up import LineUp, play_in_turn
from ..options import Options
from ..prompts import Prompts
from ..servers.launch import Launch
from ..servers.server import Server
from ..settings import Settings
from ..shape import Shape
from ..table import table
from ..workload import Workload

ROOM = 256  # context lengths are rounded up to a multiple
NOT_INSTALLED = ("No module named", "No such file")


def measure(options: Options, settings: Settings) -> dict[str, Any]:
    workloads = options.workloads(Shape.of(Path(settings.model_folder)))
    prompts = Prompts(Path(settings.model_folder))
    return {
        "groups": [
            _group(
                group, entrants(group, options.servers, options.device), workloads, prompts, options, settings
            )
            for group in options.precision
        ]
    }


def _group(
    group: str,
    chosen: list[Entrant],
    workloads: list[Workload],
    prompts: Prompts,
    options: Options,
    settings: Settings,
) -> dict[str, Any]:
    make = _Maker(workloads, options, settings)
    with closing(LineUp()) as line_up:
        for entrant in chosen:
            line_up.start(entrant, make)
        levels = [
            {
                "workload": workload.title,
                "servers": compare(play_in_turn(line_up, workload, prompts, options.repeats)),
            }
            for workload in workloads
        ]
        servers = {
            entrant.title: {"start_s": round(server.start_sec, 1)} | server.memory()
            for entrant, server in line_up.running.items()
        }
        return {"precision": group, "levels": levels, "servers": servers, "left_out": line_up.left_out}


class _Maker:
    """Makes the server of an entrant, and its file first if there is none yet.

    All have room for the default workloads at least, so that a part of the run measures what the whole does.
    """

    def __init__(self, workloads: list[Workload], options: Options, settings: Settings) -> None:
        self._options, self._settings = options, settings
        workloads = [*workloads, *options.default_workloads(settings.shape)]
        self._slots = max(workload.streams for workload in workloads)
        longest = max(workload.context_len for workload in workloads)
        self._context_len = -(-longest // ROOM) * ROOM

    def __call__(self, entrant: Entrant) -> Server:
        """Return a server that has not been started.

        :raises ActorFailed: its file cannot be made
        """
        settings, precision = self._settings, entrant.precision
        gguf = None
        if entrant.needs_gguf:
            with ActorProcess("benchmark.model_files", "ModelFiles", settings) as files:
                gguf = files.call("gguf", folder=settings.model_folder, precision=precision)
        return SERVERS[entrant.server](
            Launch(
                settings=settings,
                precision=precision,
                slots=self._slots,
                context_len=self._context_len,
                gguf=gguf,
                python=self._options.python_of(entrant.server),
            )
        )


def shown(result: dict[str, Any]) -> str:
    return "\n\n".join(_shown_group(group) for group in result["groups"])


def _shown_group(group: dict[str, Any]) -> str:
    titles = list(group["servers"])
    tables = {
        "tokens/s of all streams together (speed of chatstream relative to it, median of the rounds)": _rate,
        "seconds to the first token, median / 95th percentile of the requests": _first_token,
        "milliseconds between arrivals of text, 99th percentile": _gap,
    }
    parts = [f"{group['precision']}: streams x tokens of a prompt + tokens of a reply"]
    for title, cell in tables.items():
        rows = [
            [
                level["workload"],
                *(cell(level["servers"][t]) if t in level["servers"] else "-" for t in titles),
            ]
            for level in group["levels"]
        ]
        parts.append(f"{title}\n\n{table(['workload', *titles], rows)}")
    parts.append(f"the servers\n\n{_servers(group, titles)}")
    left_out = group["left_out"]
    parts += [f"left out: {title}: {reason}" for title, reason in left_out.items()]
    if any(word in reason for reason in left_out.values() for word in NOT_INSTALLED):
        parts.append("`scripts/bench --install` installs the packages that the servers need")
    return "\n\n".join(parts)


def _servers(group: dict[str, Any], titles: list[str]) -> str:
    head = ["server", "PSS GB", "RSS GB", "ready after s", "client's CPU at most", "same text at least"]
    rows = []
    for title in titles:
        server = group["servers"][title]
        summaries = [level["servers"][title] for level in group["levels"] if title in level["servers"]]
        same = [s["same_text"] for s in summaries if "same_text" in s]
        rows.append(
            [
                title,
                f"{server['pss']:.2f}",
                f"{server['rss']:.2f}",
                f"{server['start_s']:.1f}",
                f"{max(s['client_cpu'] for s in summaries):.1%}",
                f"{min(same):.0%}" if same else "-",
            ]
        )
    return table(head, rows)


def _rate(summary: dict[str, Any]) -> str:
    ratio = f" ({summary['ratio']:.2f}x)" if "ratio" in summary else ""
    return f"{summary['tokens_per_s']:.1f}{ratio}"


def _first_token(summary: dict[str, Any]) -> str:
    return f"{summary['first_token_p50_s']:.2f} / {summary['first_token_p95_s']:.2f}"


def _gap(summary: dict[str, Any]) -> str:
    return f"{summary['gap_p99_ms']:.0f}"
