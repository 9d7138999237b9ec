"""The Grafana dashboard and the alert rules ask only for what is exported, with labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatstream_flask import ChatStream
from chatstream_flask.monitoring.engine_collector import make_registry
from chatstream_flask.remote.upstream import Upstream

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = (DOCS / "prometheus-alerts.yml").read_text(encoding="utf-8")
PAGE = (DOCS / "monitoring.md").read_text(encoding="utf-8")
TARGET_LABELS = {"instance", "job"}  # that Prometheus adds


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Return the labels of each name, also of those that only servers with engines or hooks have."""
    labels: dict[str, set[str]] = {}
    engine = ChatStream(use_mock_response=True).engine
    engine.upstreams = lambda: [Upstream("http://127.0.0.1:8000")]
    engine.stats.record_hook("before_reply", 0.1, is_failed=False)
    for family in make_registry(engine).collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yield from re.findall(r"expr: (?:\|\n)?(.*?)\n        (?:for|labels):", ALERTS, re.DOTALL)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:chatstream|process)_\w+", text))


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_expression_names_what_is_exported(expression: str, exported: dict[str, set[str]]) -> None:
    names = names_in(expression)
    assert names or expression.startswith("up{")
    assert names <= set(exported)
    matched = set(re.findall(r"(\w+)=~?\"", expression))
    grouped = {label for group in re.findall(r"by \(([\w, ]+)\)", expression) for label in group.split(", ")}
    known = TARGET_LABELS.union(*(exported[name] for name in names))
    assert matched | grouped <= known


def test_every_metric_of_ours_is_in_the_dashboard(exported: dict[str, set[str]]) -> None:
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in names_in(json.dumps(DASHBOARD))}
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported}
    assert {name for name in families if name.startswith("chatstream_")} == {
        name for name in shown if name.startswith("chatstream_")
    }


def test_every_metric_of_ours_is_explained(exported: dict[str, set[str]]) -> None:
    table = PAGE.split("## Metrics")[1].split("## ")[0]
    explained = set(re.findall(r"`(\w+)(?:\{\w+\})?`", table))
    families = {
        re.sub("_(bucket|sum|count)$", "", name) for name in exported if name.startswith("chatstream_")
    }
    assert {name.removeprefix("chatstream_") for name in families} <= explained


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
