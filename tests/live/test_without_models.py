"""What needs no local model runs where torch and transformers are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatstream_flask.client import free_port

from .client import Visitor
from .server import REPOSITORY, TESTS, Server

WITHOUT_MODELS = {"PYTHONPATH": os.pathsep.join([str(TESTS / "live" / "without_models"), str(REPOSITORY)])}


@pytest.mark.server
def test_a_mock_chat_is_served(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--mock", "echo", "--port", str(port)]
    with Server(command, port, tmp_path, WITHOUT_MODELS) as server, Visitor(port) as visitor:
        server.wait_until_ready("/")
        assert "how are you" in visitor.ask("how are you")
        assert server.terminate() == 0


def test_a_local_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", "0"]
    environ = os.environ | WITHOUT_MODELS
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "No module named 'torch': a model in this process needs torch and transformers" in done.stderr


def test_queue_and_scheduler_pass_their_tests() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/mock"]
    command += [f"tests/engine/test_{name}.py" for name in ("engine", "request_queue", "scheduler", "worker")]
    environ = os.environ | WITHOUT_MODELS
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
