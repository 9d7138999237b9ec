"""Plots of a run: tokens/s over the number of streams, and over the context length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .entry import ENTRIES


def draw(parts: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the plots of the parts that have one; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if any(level["contenders"] for level in parts.get("streams", {}).get("levels", ())):
        paths.append(_streams(parts["streams"], folder / "streams.svg"))
    if "lines" in parts.get("growth", {}):
        paths.append(_growth(parts["growth"], folder / "growth.svg"))
    return paths


def _streams(result: dict[str, Any], path: Path) -> Path:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name in ENTRIES:
        points = [
            (level["streams"], level["contenders"][name]["tokens_per_s"])
            for level in result["levels"]
            if name in level["contenders"]
        ]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    streams = [level["streams"] for level in result["levels"]]
    _label(axes, "tokens/s, all streams together", "streams", streams)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize="small")
    return _save(figure, path)


def _growth(result: dict[str, Any], path: Path) -> Path:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for line in result["lines"]:
        axes.plot(
            result["context_lens"],
            line["tokens_per_s_per_stream"],
            marker="o",
            label=line["streams"],
        )
    _label(axes, "tokens/s per stream", "tokens of context", result["context_lens"])
    axes.legend(title="streams", fontsize="small")
    axes.set_ylim(bottom=0)
    return _save(figure, path)


def _label(axes: Axes, y: str, x: str, ticks: list[int]) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
