"""Commands that do not get as far as serving: wrong values end them with a message and an exit code."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chatstream_flask.cli.cli import cli


def serve(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["serve", *args])
    return result.exit_code, result.output


@pytest.mark.parametrize("command", [["chatstream_flask"], ["flask", "chatstream"]])
def test_help_lists_the_commands(command: list[str], tmp_path: Path) -> None:
    """Run it in a folder without an app."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert re.search(r"serve +Serve the chat under waitress", done.stdout)
    assert done.stderr == ""


def test_help_explains_the_options() -> None:
    code, output = serve("--help")
    assert code == 0
    for option in (
        "--model NAME",
        "--revision",
        "--dtype",
        "--chat-template",
        "--model-name",
        "--device",
        "--host",
        "--port",
        "--num-of-concurrent-executions",
        "--max-queue-size",
        "--num-of-generation-threads",
        "--too-many-request-as-http-error",
        "--max-new-tokens",
        "--context-len",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repetition-penalty",
        "--prompt-lookup-num-tokens",
        "--mock",
        "--api-key",
        "--cookie-secure",
    ):
        assert option in output


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["--port", "http"], "'http' is not a valid integer"),
        (["--mock", "poem"], "'poem' is not one of 'round', 'long', 'echo'"),
        (["--tempature", "1"], "No such option"),
        (["--device", "cpu,gpu"], "or a list of these, not 'gpu'"),
        (["--device", "cpu,cpu,cpu"], "num_of_concurrent_executions=2 is less than the 3 devices"),
        (["--mock", "round", "--num-of-concurrent-executions", "0"], "must be between 1 and 4096, not 0"),
        (["--mock", "round", "--max-queue-size", "-1"], "max_queue_size must be between 0 and"),
        (["--mock", "round", "--num-of-generation-threads", "0"], "must be between 1 and 64, not 0"),
        (["--mock", "round", "--mock-seconds-per-token", "-1"], "time_per_token_sec must be between 0 and"),
        (["--mock", "round", "--api-key", "sha256:1"], "a digest in api_keys must be sha256: and 64"),
        (["--mock", "round", "--context-len", "100"], "max_new_tokens=256 leaves no room"),
        (["--mock", "round", "--prompt-lookup-num-tokens", "65"], "must be between 0 and 64, not 65"),
        (["--mock", "round", "--temperature", "3"], "temperature must be between 0 and 2, not 3.0"),
        (["--mock", "round", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid:3000"),
    ],
)
def test_a_wrong_value(
    args: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = serve(*args)
    assert code in (1, 2), output
    assert "Error: " in output
    assert sentence in output


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "empty"), str(tmp_path / "no_such_folder")):
        code, output = serve("--model", name)
        assert code == 1
        assert f"Error: the model {name} could not be loaded: " in output


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Use another process, as waitress leaves its sockets open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "chatstream_flask", "serve", "--mock", "round", "--port", port]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"Error: cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_hold_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instance").write_text("")
    code, output = serve("--mock", "round")
    assert code == 1
    assert "set CHATSTREAM_STORE_DIR" in output
