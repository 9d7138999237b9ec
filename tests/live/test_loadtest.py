"""`scripts/loadtest` as a process: right replies pass, and a server that mixes up visitors is detected."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from werkzeug.serving import make_server

from chatstream_flask import ChatStream
from loadtest.client import ChatClient
from loadtest.plan import VARIABLE
from loadtest.record import Record
from loadtest.script import SmallTalkScript
from loadtest.visitor import Habits, Visitor

from .server import REPOSITORY

pytestmark = pytest.mark.server

FILES = ("report.html", "result.json", "result.csv", "latency.svg", "goodput.svg")
LOCUST_FILES = ("locust.html", "locust_stats.csv", "records.jsonl")


def loadtest(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "loadtest", "--output", str(folder), "--think", "0.05", *arguments]
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=300)
    assert (folder / "result.json").exists(), done.stderr
    return done.returncode, json.loads((folder / "result.json").read_text())


def test_a_short_run_finds_all_answers_right_and_leaves_its_files(tmp_path: Path) -> None:
    server = ["--running", "3", "--waiting", "1", "--tokens-per-sec", "100"]
    status, result = loadtest(tmp_path, "--users", "2", "6", "--duration", "3", *server)
    assert (status, result["answers"]) == (0, "PASS"), result["runs"]
    few, many = result["runs"]
    assert few["users"] == 2 and few["num_right"] > 0 and few["verdicts"].get("refused", 0) == 0
    assert many["verdicts"]["refused"] > 0  # six users, four places
    assert {"right", "refused"} <= set(many["verdicts"]) <= {"right", "refused", "left"}
    assert few["TTFT"]["num"] > 0 and few["ITL"]["num"] > 0
    assert [name for name in FILES if not (tmp_path / name).stat().st_size] == []
    (run,) = tmp_path.glob("runs-*/waitress-6")
    assert [name for name in LOCUST_FILES if not (run / name).stat().st_size] == []
    rows = {line.split(",")[0] for line in (run / "locust_stats.csv").read_text().splitlines()}
    assert {"HTTP", "QUEUE", "TTFT", "ITL", "E2E", "REFUSED"} <= rows


def test_visitors_who_get_each_others_answers_are_a_failure(tmp_path: Path) -> None:
    with serving(mixing_app()) as url:
        status, result = loadtest(tmp_path, "--url", url, "--rate", "20", "--duration", "2", "--turns", "2")
    assert (status, result["answers"]) == (1, "FAIL")
    (run,) = result["runs"]
    assert run["verdicts"]["mixed_up"] > 0
    assert "was told what visitor-" in run["faults"][0]


def mixing_app() -> Flask:
    """Return an app that answers each request with the previous one's message."""
    app = Flask("mixing")
    said = ["nothing yet"]
    numbers = itertools.count()

    @app.post("/chat_stream")
    def chat() -> Response:
        said.append(request.get_json()["user_input"])
        done = {"finish_reason": "stop", "usage": {"completion_tokens": 3}}
        events = [("start", {}), ("text", {"text": said[-2]}), ("done", done)]
        body = "".join(f"id: 0\nevent: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
        response = Response(body, content_type="text/event-stream")
        response.set_cookie("session", str(next(numbers)))
        return response

    @app.get("/conversation")
    def conversation() -> dict[str, Any]:
        return {"messages": []}

    @app.post("/clear_context")
    def clear_context() -> dict[str, Any]:
        return {}

    return app


def test_locusts_own_command_line_loads_an_app_that_has_only_chat_stream(tmp_path: Path) -> None:
    """-u, -r and -t were ignored, and apps without the other APIs failed."""
    options = ["--headless", "-u", "3", "-r", "3", "-t", "6s", "--csv", str(tmp_path / "locust")]
    file = str(REPOSITORY / "loadtest/locustfile.py")
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    with serving_only_chat_stream(tmp_path) as url:
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", file, "--host", url, *options],
            env=environ | {"PYTHONPATH": str(REPOSITORY)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert '"Returning": 3' in done.stderr
    (e2e,) = [
        row for row in (tmp_path / "locust_stats.csv").read_text().splitlines() if row.startswith("E2E,")
    ]
    assert int(e2e.split(",")[2]) > 0


@pytest.mark.parametrize("needs_all_apis", [True, False])
def test_a_visitor_misses_apis_only_where_they_must_be(needs_all_apis: bool, tmp_path: Path) -> None:
    habits = Habits(max_turns=3, think_sec=0, regenerate=0, clear=1, leave=0, needs_all_apis=needs_all_apis)
    records: list[Record] = []
    rng = random.Random(1)
    with serving_only_chat_stream(tmp_path) as url:
        Visitor(
            ChatClient(url, "one"),
            SmallTalkScript(rng, 1),
            rng,
            habits,
            note=records.append,
            sleep=lambda sec: None,
            is_over=lambda: False,
        ).visit()
    faults = [(record.action, record.status) for record in records if record.verdict != "right"]
    missed = [("clear_context", 404), ("clear_context", 404), ("conversation", 404)]
    assert faults == (missed if needs_all_apis else [])
    assert [record.action for record in records].count("ask") == 3


@contextmanager
def serving_only_chat_stream(folder: Path) -> Iterator[str]:
    app = Flask("only", instance_path=str(folder))
    app.config["CHATSTREAM_COOKIE_SECURE"] = False
    chat_stream = ChatStream(use_mock_response=True, mock_params={"time_per_token_sec": 0.01}, app=app)
    app.post("/chat_stream")(lambda: chat_stream.handle_chat_stream_request(request))
    try:
        with serving(app) as url:
            yield url
    finally:
        chat_stream.close()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
