"""Write a result as report.html, result.json, result.csv and plots."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from .pictures import draw
from .result import Result, Run
from .summary import is_spoiled

COLUMNS = {  # of the table of runs: header -> path of the value in a summary
    "right": "num_right",
    "faults": "num_faults",
    "asked/s": "asked_per_sec",
    "replies/s": "replies_per_sec",
    "tokens/s": "tokens_per_sec",
    "QUEUE p50": "QUEUE.p50",
    "TTFT p50": "TTFT.p50",
    "TTFT p99": "TTFT.p99",
    "ITL p50": "ITL.p50",
    "ITL p99": "ITL.p99",
    "E2E p50": "E2E.p50",
    "E2E p99": "E2E.p99",
    "refused": "REFUSED.num",
    "REFUSED p99": "REFUSED.p99",
    "lag p99": "generator_late.p99",
    "CPU %": "generator_cpu",
}


def write(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result.as_dict(), indent=1), encoding="utf-8")
    with (folder / "result.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_flat_table(result))
    pictures = draw(result, folder)
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = templates.get_template("report.html").render(
        result=result.as_dict(),
        header=_header(result),
        rows=[_row(run) for run in result.runs],
        faults=[fault for run in result.runs for fault in run.summary["faults"]],
        pictures=[Markup(_inline(path)) for path in pictures],
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def print_result(result: Result, folder: Path) -> None:
    """Print the tables and the verdict; the last line is JSON."""
    print(f"\n{result.title} (times in ms)\n")
    _print_table([_header(result), *(_row(run) for run in result.runs)])
    if result.targets:
        print()
        rows = [list(target.as_dict().values()) for target in result.targets]
        _print_table([["target", "measured", "wanted", ""], *rows])
    print()
    for run in result.runs:
        actions = ", ".join(f"{name} {number}" for name, number in run.summary["actions"].items())
        print(f"{run.server} {run.name}: {actions}")
    for run in result.runs:
        for fault in run.summary["faults"]:
            print(f"\n{run.server} {run.name}: {fault}")
        if is_spoiled(run.summary):
            print(
                f"\n{run.server} {run.name}: the load generator was overloaded; its times are not reliable."
            )
    answers = "all right" if result.is_right else f"WRONG: {result.num_faults} faults"
    print(f"\nAnswers: {answers}. The report is in {folder / 'report.html'}")
    short = {key: value for key, value in result.as_dict().items() if key not in ("runs", "series")}
    print(json.dumps(short))


def _header(result: Result) -> list[str]:
    return ["server", "run", *COLUMNS]


def _row(run: Run) -> list[str]:
    return [run.server, run.name, *(_shown(_at(run.summary, path)) for path in COLUMNS.values())]


def _flat_table(result: Result) -> list[list[Any]]:
    """Return all figures of all runs, one row per run."""
    rows = [
        {
            "server": run.server,
            "run": run.name,
            result.load_name: "" if run.load is None else run.load,
            **_flat(run.summary),
        }
        for run in result.runs
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "") for name in names] for row in rows)]


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            flat[prefix + name] = value
    return flat


def _at(data: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        data = data.get(name, {})
    return data


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value) if value != {} else "-"


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _inline(path: Path) -> str:
    """Return the SVG without its XML declaration."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]
