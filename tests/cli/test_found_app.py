"""`flask --app X chatstream serve` serves X or fails: never the built-in app in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.cli import cli

APP = """
from flask import Flask
from chatstream_flask import ChatStream

app = Flask("shop")
app.secret_key = "a secret of the tests"
app.config["CHATSTREAM_STORE"] = "memory://"
ChatStream(use_mock_response=True, app=app)
"""
NO_PORT = ["--port", "0", "--host", "no.such.host.invalid"]  # ends the command where it would listen


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def flask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `flask` in a folder with nothing but what a test writes there.

    It runs in this process, as importing everything in one of its own takes most of a second.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "false")  # what `flask` changes is restored

    def run(*words: str, **environ: str) -> tuple[int, str]:
        for name in ("app", "shop"):  # of an earlier run
            sys.modules.pop(name, None)
        result = CliRunner().invoke(cli, words, prog_name="flask", env=environ)
        return result.exit_code, result.stderr + repr(result.exception)

    return run


@pytest.mark.parametrize("command", ["serve", "chat"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "Could not import 'shop'"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("raise ValueError('no settings')", "ValueError('no settings')"),
        ("app = 1", "Failed to find Flask application or factory in module 'shop'"),
        ("from flask import Flask; app = Flask('shop')", "the app 'shop' has no ChatStream"),
    ],
)
def test_an_app_that_cannot_be_served(
    command: str, source: str | None, said: str, tmp_path: Path, flask: Run
) -> None:
    if source is not None:
        (tmp_path / "shop.py").write_text(source)
    code, stderr = flask("--app", "shop", "chatstream", command)
    assert code != 0
    assert said in stderr
    assert "Serving" not in stderr and "Loading" not in stderr


def test_an_app_file_of_the_folder_counts_as_named(tmp_path: Path, flask: Run) -> None:
    (tmp_path / "app.py").write_text("import no_such_package")
    code, stderr = flask("chatstream", "serve", "--mock", "round", *NO_PORT)
    assert code != 0
    assert "No module named 'no_such_package'" in stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--api-key", "k" * 32], "--api-key:"),
        (["--store", "memory://", "--max-queue-size", "9"], "--max-queue-size, --store:"),
        (["--model", "gpt2"], "--model:"),
        (["--log-format", "json", "--cookie-secure"], "--cookie-secure, --log-format:"),
    ],
)
def test_options_that_do_not_apply_to_the_app(
    options: list[str], named: str, tmp_path: Path, flask: Run
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    code, stderr = flask("--app", "shop", "chatstream", "serve", *NO_PORT, *options)
    assert code == 2
    assert f"Error: {named} the app 'shop' has a ChatStream of its own" in stderr


def test_options_of_a_model_do_not_apply_to_a_chat_with_the_app(tmp_path: Path, flask: Run) -> None:
    (tmp_path / "shop.py").write_text(APP)
    code, stderr = flask("--app", "shop", "chatstream", "chat", "--temperature", "0")
    assert code == 2
    assert "Error: --temperature: the app 'shop' has a ChatStream of its own" in stderr


def test_keys_of_the_environment_that_the_app_does_not_read(tmp_path: Path, flask: Run) -> None:
    (tmp_path / "shop.py").write_text(APP)
    words = ("--app", "shop", "chatstream", "serve", *NO_PORT)
    code, stderr = flask(*words, CHATSTREAM_API_KEYS="k" * 32)
    assert code == 2
    assert "CHATSTREAM_API_KEYS does not apply to the app 'shop'" in stderr


def test_the_first_line_says_which_app_and_which_model(tmp_path: Path, flask: Run) -> None:
    (tmp_path / "shop.py").write_text(APP)
    _, stderr = flask("--app", "shop", "chatstream", "serve", *NO_PORT)
    assert stderr.splitlines()[0] == "Serving the app 'shop' with the model mock"
    (tmp_path / "shop.py").unlink()
    _, stderr = flask("chatstream", "serve", "--mock", "echo", *NO_PORT)
    assert stderr.splitlines()[0] == "Serving the built-in app with the model mock (echo)"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the app 'shop' has several ChatStreams: choose one with --name: default, titles"),
        (["--name", "large"], 2, "the app 'shop' has no ChatStream named 'large': choose one with --name"),
        (["--name", "titles"], 0, ""),
    ],
)
def test_chat_with_one_of_several(words: list[str], code: int, said: str, tmp_path: Path, flask: Run) -> None:
    (tmp_path / "shop.py").write_text(APP + 'ChatStream(name="titles", use_mock_response=True, app=app)\n')
    done, stderr = flask("--app", "shop", "chatstream", "chat", *words)
    assert done == code, stderr
    assert said in stderr


def test_serve_starts_all_of_several(tmp_path: Path, flask: Run) -> None:
    (tmp_path / "shop.py").write_text(APP + 'ChatStream(name="titles", use_mock_response=True, app=app)\n')
    _, stderr = flask("--app", "shop", "chatstream", "serve", *NO_PORT)
    assert "Serving the app 'shop' with the model mock and mock" in stderr
