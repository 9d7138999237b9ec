"""Result of a load test: its runs, its targets, and whether all replies were right."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from .record import FORGOTTEN

MAX_FORGOTTEN = {"demo": 0.05, "other": 1.0}  # by model: fraction of replies that may lack the visitor's name
PASS, FAIL = "PASS", "FAIL"


@dataclass(frozen=True)
class Goal:
    """A target: what was measured, and what is wanted."""

    name: str
    value: str
    wanted: str
    is_met: bool

    def as_dict(self) -> dict[str, str]:
        word = PASS if self.is_met else FAIL
        return {"name": self.name, "value": self.value, "wanted": self.wanted, "verdict": word}


@dataclass
class Run:
    """One server under one load."""

    server: str
    name: str
    load: float | None  # x coordinate in the plots; None: not plotted
    summary: dict[str, Any]


@dataclass
class Result:
    """Everything that the report shows."""

    title: str
    load_name: str  # unit of the runs' loads
    runs: list[Run] = field(default_factory=list)
    targets: list[Goal] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # by server, over time

    @property
    def num_faults(self) -> int:
        return sum(run.summary["num_faults"] for run in self.runs)

    @property
    def is_right(self) -> bool:
        """True if each run had replies and all were right; targets depend on the machine and do not count."""
        return bool(self.runs) and all(self._is_right(run.summary) for run in self.runs)

    def _is_right(self, summary: dict[str, Any]) -> bool:
        if not summary["num_right"] or summary["num_faults"]:
            return False
        may_forget = MAX_FORGOTTEN.get(self.conditions.get("model", ""), 0.0)
        forgotten: int = summary["verdicts"].get(FORGOTTEN, 0)
        num_right: int = summary["num_right"]
        return forgotten <= may_forget * (forgotten + num_right)

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "answers": PASS if self.is_right else FAIL,
            "conditions": {"cpus": os.cpu_count(), "machine": platform.machine(), **self.conditions},
            "targets": [target.as_dict() for target in self.targets],
            "runs": [
                {"server": r.server, "name": r.name, self.load_name: r.load, **r.summary} for r in self.runs
            ],
            "series": self.series,
        }
