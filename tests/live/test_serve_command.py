"""`python -m chatstream_flask serve`, as a user types it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from chatstream_flask.client import free_port

from .client import TIMEOUT_SEC, SocketChat, wait_until
from .server import Server

pytestmark = pytest.mark.server

MAX_END_SEC = 5.0  # catches a hang; usually below one


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(port), *options]
    with Server(command, port, folder) as server:
        server.wait_until_ready("/")
        yield server


def curl(server: Server, text: str) -> list[str]:
    """Return the output of the README's `curl -N`, one string per read."""
    command = f"curl -sS -N -b cookies -c cookies http://127.0.0.1:{server.port}/chat_stream".split()
    command += ["-H", "Content-Type: application/json", "-d", json.dumps({"user_input": text})]
    with subprocess.Popen(command, cwd=server.folder, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        read = partial(process.stdout.read, 65536)
        pieces = [piece.decode(errors="replace") for piece in iter(read, b"")]
        assert process.wait(TIMEOUT_SEC) == 0
    return pieces


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_curl_gets_sensible_answers_piece_by_piece_and_after_a_restart(tmp_path: Path) -> None:
    with served(tmp_path, "--temperature", "0") as server:
        assert len(curl(server, "Tell me a story.")) > 1
        assert "Lucy" in "".join(curl(server, "My name is Lucy."))
        assert "Paris" in "".join(curl(server, "What is the capital of France?"))
        assert "Lucy" in "".join(curl(server, "What is my name?"))
        second = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(free_port())]
        refused = subprocess.run(second, cwd=tmp_path, capture_output=True, text=True)
        assert refused.returncode == 1
        assert f"are used by process {server.process.pid}, and a second one would" in refused.stderr
        assert server.terminate() == 0
    with served(tmp_path, "--temperature", "0") as server:
        assert "Lucy" in "".join(curl(server, "What is my name?"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_every_reply_and_then_the_server(number: signal.Signals, tmp_path: Path) -> None:
    with served(tmp_path, "--mock", "long") as server, ExitStack() as stack:
        chats = []
        for _ in range(3):  # two run, one waits
            chats.append(stack.enter_context(SocketChat(server.port)))
            chats[-1].read_until(lambda chat: bool(chat.events))
        server.process.send_signal(number)
        wait_until(lambda: "a second signal ends them" in server.output)
        began = time.monotonic()
        server.process.send_signal(number)
        assert server.wait() == 0
        assert time.monotonic() - began < MAX_END_SEC
        for chat in chats:
            assert chat.read_to_end().is_complete
            assert chat.events[-1].name == "done"
            assert chat.events[-1].data["finish_reason"] == "shutdown"
        assert len(re.findall("ended: shutdown", server.output)) == 3
        assert "Traceback" not in server.output


def test_what_cannot_be_served_is_answered_with_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for options, sentence in {
            ("--max-queue-size", "-1"): "max_queue_size must be between 0 and 1000000, not -1",
            ("--num-of-generation-threads", "3"): "num_of_generation_threads=3 is more than",
            ("--context-len", "100"): "max_new_tokens=256 leaves no room for a prompt",
            ("--que-size", "1"): "No such option",
            ("--port", port): f"cannot listen on 127.0.0.1:{port}",
        }.items():
            assert sentence in refusal(tmp_path, "--mock", "round", *options)


def refusal(folder: Path, *options: str) -> str:
    """Return the error message that the command prints instead of serving."""
    with Server([sys.executable, "-m", "chatstream_flask", "serve", *options], 0, folder) as server:
        before = len(server.output)
        assert server.wait() != 0
        said = server.output[before:]
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("Error: ")
    return said
