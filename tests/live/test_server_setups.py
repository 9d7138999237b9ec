"""Server configurations that would lose replies are refused; those that need more get a warning."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatstream_flask.client import free_port

from .client import TEXT, SocketChat, Visitor, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server

APP = """
from flask import Flask, request
from chatstream_flask import ChatStream

app = Flask(__name__, instance_path={folder!r})
app.config.update(CHATSTREAM_COOKIE_SECURE=False, CHATSTREAM_DRAIN_SEC=1)
chat_stream = ChatStream(use_mock_response=True, mock_params={{"time_per_token_sec": 0.0}}, app=app)
app.get("/")(lambda: "ready")
app.post("/chat_stream", endpoint="chat")(lambda: chat_stream.handle_chat_stream_request(request))
"""
CONF = ("-c", "python:chatstream_flask.serving.gunicorn_conf")
PLAIN = ("--no-control-socket", "--threads", "23")  # a user's own
WAITRESS = "import sys, waitress, made; waitress.serve(made.app, port=int(sys.argv[1]), threads={threads})"


def gunicorn(folder: Path, *options: str, more: str = "") -> Server:
    folder.mkdir(exist_ok=True)
    (folder / "made.py").write_text(APP.format(folder=str(folder / "instance")) + more)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "made:app", "--bind", f"127.0.0.1:{port}", *options]
    return Server(command, port, folder)


@contextmanager
def waitress(folder: Path, threads: int) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    (folder / "made.py").write_text(APP.format(folder=str(folder / "instance")))
    port = free_port()
    with Server([sys.executable, "-c", WAITRESS.format(threads=threads), str(port)], port, folder) as server:
        server.wait_until_ready("/")
        yield server


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "2"], "workers=2, and each would load the model and have a queue of its own: set"),
        (["--max-requests", "100"], "max_requests=100 would end the worker again and again"),
        (["-k", "sync"], "worker class sync runs all requests in one thread"),
    ],
)
def test_a_gunicorn_that_would_lose_replies_does_not_start(
    options: list[str], sentence: str, tmp_path: Path
) -> None:
    with gunicorn(tmp_path, *CONF, *options) as server:
        assert server.wait() == 1
        assert sentence in server.output
        assert "Error: " in server.output and "Traceback" not in server.output
    own = ["--no-control-socket", *options]
    with gunicorn(tmp_path / "own", *own) as server:
        assert server.wait() != 0
        assert sentence in server.output


def test_a_gunicorn_with_too_few_threads_is_told(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "--no-control-socket", "--threads", "7", "--reload") as server:
        server.wait_until_ready("/")
        assert "gunicorn has threads=7, but up to 7 running and waiting replies" in server.output
        assert "set threads=23" in server.output
        assert "gunicorn's reload loads the model again" in server.output


def test_a_gunicorn_of_the_users_own_serves(tmp_path: Path) -> None:
    with gunicorn(tmp_path, *PLAIN) as server, Visitor(server.port) as visitor:
        server.wait_until_ready("/")
        assert visitor.ask("Hello!").startswith("1. Hello!")
        assert "threads" not in server.output
        assert server.terminate() == 0


@pytest.mark.parametrize("options", [CONF, PLAIN])
def test_threads_started_before_the_fork_are_noticed(options: tuple[str, ...], tmp_path: Path) -> None:
    more = "chat_stream.start_queue_worker()\n"
    sentence = "the generation threads were started before the server forked its worker"
    with gunicorn(tmp_path, *options, "--preload", more=more) as server:
        if options is CONF:
            assert server.wait() == 3
        else:
            server.wait_until_ready("/")
            with Visitor(server.port) as visitor, visitor.post("Hello!") as response:
                assert response.status_code == 500
                assert sentence in response.json()["detail"]
        assert sentence in server.output


def test_a_waitress_of_the_users_own_is_told_what_it_needs(tmp_path: Path) -> None:
    with waitress(tmp_path, threads=4) as server, Visitor(server.port) as visitor:
        assert visitor.ask("Hello!").startswith("1. Hello!")
        assert visitor.ask("Hello!").startswith("2. ")
        needs = "waitress needs threads=23, channel_request_lookahead=1, asyncore_use_poll=True for up to 7"
        assert server.output.count(needs) == 1
        assert server.output.count("this waitress does not let replies finish when it is stopped") == 1


def test_a_server_with_one_thread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(APP.format(folder=str(tmp_path / "instance")))
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        "made",
        "run",
        "--without-threads",
        "--port",
        str(port),
    ]
    with Server(command, port, tmp_path) as server, Visitor(port) as visitor:
        server.wait_until_ready("/")
        with visitor.post("Hello!") as response:
            assert response.status_code == 500
            assert "this server answers one request at a time" in response.json()["detail"]


def test_a_body_that_never_comes_gives_its_thread_back(tmp_path: Path) -> None:
    """This concerns gunicorn; waitress reads bodies without using a thread."""
    config = {"CHATSTREAM_CLIENT_TIMEOUT_SEC": 0.5}
    echo = {"type": "echo", "time_per_token_sec": 0.0}
    with start_mock("gunicorn", tmp_path, echo, config=config) as server:
        with SocketChat(server.port, accept=TEXT, is_body_sent=False) as chat:
            assert chat.read_to_end().status == 408
            assert b"the body did not arrive" in chat.raw
        with Visitor(server.port) as visitor:
            assert visitor.ask("Hello!") == "Hello!"


def test_a_client_that_takes_nothing_gives_its_thread_back(tmp_path: Path) -> None:
    config = {
        "CHATSTREAM_CLIENT_TIMEOUT_SEC": 0.5,
        "CHATSTREAM_MAX_INPUT_LEN": 10_000_000,
        "CHATSTREAM_MAX_BODY_LEN": 10_000_000,
    }
    echo = {"type": "echo", "time_per_token_sec": 0.0}
    words = " ".join(["x" * 100_000] * 50)  # more than socket buffers can hold
    with (
        start_mock("gunicorn", tmp_path, echo, config=config, context_len=10_000_000) as server,
        SocketChat(server.port, words, accept=TEXT, receive_buffer=4096) as slow,
    ):
        slow.read()
        wait_until(lambda: "did not read its response for 0.5 s" in server.output)
        assert not slow.read_to_end().is_complete
