"""Plots of a result: latency and goodput over load, and the server's resources over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .result import Result

LATENCIES = ("QUEUE", "TTFT", "ITL", "E2E")
MARKS = {"p50": ":", "p95": "--", "p99": "-"}


def draw(result: Result, folder: Path) -> list[Path]:
    paths = []
    if len({run.load for run in result.runs} - {None}) > 1:
        paths += [_latency(result, folder / "latency.svg"), _goodput(result, folder / "goodput.svg")]
    paths += [_held(name, points, folder / f"held-{name}.svg") for name, points in result.series.items()]
    return paths


def _latency(result: Result, path: Path) -> Path:
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 2).flat, LATENCIES, strict=True):
        for number, (server, runs) in enumerate(_by_server(result).items()):
            for mark, style in MARKS.items():
                points = [(load, summary[kind][mark]) for load, summary in runs if summary[kind]["num"]]
                axes.plot(*_columns(points), style, marker=".", color=f"C{number}", label=f"{server} {mark}")
        _label(axes, kind, result.load_name, "ms")
    return _save(figure, path)


def _goodput(result: Result, path: Path) -> Path:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for server, runs in _by_server(result).items():
        points = [(load, summary["tokens_per_sec"]) for load, summary in runs]
        axes.plot(*_columns(points), marker="o", label=server)
    axes.set_ylim(bottom=0)
    _label(axes, "goodput: tokens of right replies", result.load_name, "tokens/s")
    return _save(figure, path)


def _held(server: str, points: list[dict[str, float]], path: Path) -> Path:
    names = [name for name in points[0] if name != "at"]
    figure = Figure(figsize=(9, 2 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), 1).flat, names, strict=True):
        axes.plot([point["at"] for point in points], [point[name] for point in points], label=server)
        _label(axes, name, "seconds", name)
    return _save(figure, path)


def _by_server(result: Result) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Return the loads and summaries of each server, sorted by load."""
    points: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for run in result.runs:
        if run.load is not None:
            points.setdefault(run.server, []).append((run.load, run.summary))
    return {server: sorted(of_server, key=lambda point: point[0]) for server, of_server in points.items()}


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
