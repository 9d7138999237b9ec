"""`flask run --debug` loads an app twice; the model is loaded only in the process that serves."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from flask import Flask
from flask.cli import run_command

from chatstream_flask import ChatStream
from chatstream_flask.errors import ConfigError


def load(folder: Path, reload: bool | None) -> ChatStream:
    """Load a model that does not exist, as an app does while `flask run` imports it."""
    app = Flask("shop", instance_path=str(folder))
    with click.Context(run_command) as context:
        context.params["reload"] = reload
        return ChatStream.from_pretrained(folder / "no-model", max_new_tokens=5000, name="large", app=app)


@pytest.mark.parametrize(("debug", "reload"), [("1", None), ("0", True)])
def test_the_process_that_watches_files_loads_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str, reload: bool | None
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", debug)
    monkeypatch.delenv("WERKZEUG_RUN_MAIN", raising=False)
    assert load(tmp_path, reload).name == "large"


@pytest.mark.parametrize(
    ("debug", "reload", "run_main"), [("1", None, "true"), ("1", False, ""), ("0", None, "")]
)
def test_the_process_that_serves_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str, reload: bool | None, run_main: str
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", debug)
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", run_main)
    with pytest.raises(ConfigError, match="no-model"):
        load(tmp_path, reload)


def test_commands_that_do_not_reload_load_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    with pytest.raises(ConfigError, match="no-model"):
        ChatStream.from_pretrained(tmp_path / "no-model")
