"""Servers described in docs/platforms.md: refused with an error message, or working as described."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from chatstream_flask.client import free_port, text_of

from .client import TEXT, SocketChat, Visitor, wait_until
from .server import Server

pytestmark = pytest.mark.server

APP = """
from pathlib import Path

from flask import Flask, request
from chatstream_flask import ChatStream

app = Flask(__name__, instance_path={folder!r})
app.config.update(CHATSTREAM_COOKIE_SECURE=False)
mock = {{"type": "echo", "time_per_token_sec": 0.02}}
chat_stream = ChatStream(use_mock_response=True, mock_params=mock, app=app)
with Path({folder!r}, "loads").open("a") as loads:
    loads.write("loaded\\n")  # where an app loads its model
chat_stream.append_apis(app, {{"all": True}})
app.get("/ready")(lambda: "ready")
"""
ONE_AT_A_TIME = "this server answers one request at a time"
SEVERAL_PROCESSES = "this server runs the app in several processes"


def program(name: str) -> str:
    """Return the path of a program, next to this Python or on the PATH."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def serving(folder: Path, port: int, *command: str, **environ: str) -> Iterator[Server]:
    (folder / "made.py").write_text(APP.format(folder=str(folder)))
    with Server(list(command), port, folder, environ) as server:
        server.wait_until_ready("/ready")
        yield server


@contextmanager
def uwsgi(folder: Path, port: int, *options: str) -> Iterator[Server]:
    where = ["--http-socket", f"127.0.0.1:{port}", "--module", "made:app", "--master", "--need-app"]
    with serving(folder, port, program("uwsgi"), *where, *options) as server:
        yield server


def num_accepted(server: Server) -> int:
    (worker,) = requests.get(f"http://127.0.0.1:{server.port}/get_load", timeout=10).json()[
        "chatstream_workers"
    ]
    return int(worker["processing"] + worker["waiting"])


def check_streams(server: Server) -> None:
    """Check that text arrives in pieces, others are served meanwhile, and a disconnect frees the place."""
    with Visitor(server.port) as visitor:
        words = " ".join(f"word{i}" for i in range(20))
        assert text_of(visitor.ask_for_events(words)) == words
        with SocketChat(server.port, "word " * 1000, accept=TEXT) as chat:
            chat.read_until(lambda chat: b"word" in chat.raw)
            assert chat.raw.count(b"word") < 100
            assert num_accepted(server) == 1
        wait_until(lambda: num_accepted(server) == 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], ONE_AT_A_TIME),
        (["--enable-threads"], ONE_AT_A_TIME),
        (["--processes", "2", "--threads", "16"], SEVERAL_PROCESSES),
    ],
)
def test_a_uwsgi_that_would_lose_replies_is_refused(
    options: list[str], sentence: str, tmp_path: Path
) -> None:
    with uwsgi(tmp_path, free_port(), *options) as server, Visitor(server.port) as visitor:
        with visitor.post("Hello!") as response:
            assert response.status_code == 500
            assert sentence in response.json()["detail"]
        assert sentence in server.output


def test_a_uwsgi_with_threads_works(tmp_path: Path) -> None:
    with uwsgi(tmp_path, free_port(), "--threads", "16") as server:
        check_streams(server)


def test_granian_works(tmp_path: Path) -> None:
    port = free_port()
    command = [program("granian"), "--interface", "wsgi", "--port", str(port), "made:app"]
    with serving(tmp_path, port, *command) as server:
        check_streams(server)


@pytest.mark.parametrize(
    ("command", "num_loads"),
    [
        (["run", "--debug", "--port"], 2),  # Flask's reloader: the parent, which only watches, and the child
        (["run", "--debug", "--no-reload", "--port"], 1),
        (["run", "--port"], 1),
        (["--debug", "chatstream", "serve", "--port"], 1),
    ],
)
def test_how_often_a_model_is_loaded(command: list[str], num_loads: int, tmp_path: Path) -> None:
    port = free_port()
    flask = [sys.executable, "-m", "flask", "--app", "made", *command, str(port)]
    with serving(tmp_path, port, *flask) as server:
        with Visitor(server.port) as visitor:
            assert visitor.ask("Hello!") == "Hello!"
        assert (tmp_path / "loads").read_text().count("loaded") == num_loads
