"""Health and metrics of a real server: a model that hangs, and what is scraped."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from chatstream_flask.client import parse_events, text_of

from .client import EVENTS, Visitor, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server


def get(server: Server, path: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=10)


def test_a_model_that_hangs_ends_its_reply_and_is_served_again_by_a_new_thread(
    kind: str, tmp_path: Path
) -> None:
    options = {"num_of_generation_threads": 1, "num_of_concurrent_executions": 1}
    mock = {"type": "round", "time_per_token_sec": 0.0}
    config = {"CHATSTREAM_HUNG_AFTER_SEC": 1.0}
    one = start_mock(kind, tmp_path, mock, config=config, **options)
    with one as server, Visitor(server.port) as visitor:
        first = visitor.ask("Hello!")
        server.set_fault(kind="stall")
        with visitor.post("Hello!", accept=EVENTS) as response:
            events = parse_events(response.content)
        assert (events[-1].name, events[-1].data["code"]) == ("error", "generation_failed")
        wait_until(lambda: get(server, "/health/ready").status_code == 200)  # readiness needs no forward pass
        server.set_fault()
        second = text_of(visitor.ask_for_events("Hello!"))
        assert second and second != first  # the failed turn does not count
        (thread,) = get(server, "/health/ready").json()["threads"]
        assert thread["name"] == "chatstream-generation-1"
        assert 'replacements_total{reason="hung"} 1.0' in get(server, "/metrics").text
        assert "faults.wait(" in server.output  # where it hung
        server.check_idle()
        assert server.terminate() == 0


def test_metrics_of_a_server_whose_host_uses_multiprocess_prometheus(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    with start_mock(kind, tmp_path, {"type": "round", "time_per_token_sec": 0.0}) as server:
        with Visitor(server.port) as visitor:
            visitor.ask("Hello!")
        response = get(server, "/metrics")
        assert 'chatstream_request_success_total{finished_reason="stop"} 1.0' in response.text
        assert "chatstream_ready 1.0" in response.text
        assert get(server, "/health/live").json() == {"status": "alive"}
        assert list(folder.iterdir()) == []
