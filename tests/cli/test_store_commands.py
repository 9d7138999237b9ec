"""`flask chatstream init-db` and `purge`."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from chatstream_flask import ChatStream
from chatstream_flask.cli.store_commands import init_db, purge
from chatstream_flask.conversation.sql_store import SQLStore


def run(command: click.Command, *args: str, app: Flask | None = None) -> Result:
    info = ScriptInfo(create_app=lambda: app) if app is not None else None
    return CliRunner().invoke(command, args, obj=info)


def host(tmp_path: Path) -> Flask:
    app = Flask("host", instance_path=str(tmp_path))
    app.config["CHATSTREAM_STORE_DIR"] = str(tmp_path / "store")
    return app


def test_tables_are_made_and_conversations_purged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    before = run(purge, "--store", url)
    assert (before.exit_code, before.output) == (
        1,
        "Error: the tables for conversations are missing: run `flask chatstream init-db`\n",
    )
    for _ in range(2):
        made = run(init_db, "--store", url)
        assert (made.exit_code, made.output) == (0, "The tables for conversations are up to date.\n")
    store = SQLStore(url, ttl_sec=0.001)
    lease = store.hold("a")
    lease.save({})
    lease.close()
    while store.load("a") is not None:  # a millisecond
        pass
    store.close()
    assert run(purge, "--store", url).output == "Removed: 1\n"
    assert run(purge, "--store", url).output == "Removed: 0\n"


def test_a_wrong_url_is_a_sentence() -> None:
    wrong = run(init_db, "--store", "mysql://host")
    assert wrong.exit_code == 1
    assert wrong.output.startswith("Error: the URL of a store must start with memory://")


def test_the_store_of_the_app(tmp_path: Path) -> None:
    app = host(tmp_path)
    ChatStream(use_mock_response=True, app=app)
    assert run(init_db, app=app).output == "Nothing to do: a FlaskSessionStore has no tables.\n"
    assert run(purge, app=app).output == "Removed: 0\n"


def test_an_app_without_a_chat(tmp_path: Path) -> None:
    without = run(purge, app=host(tmp_path))
    assert (without.exit_code, without.output) == (
        1,
        "Error: the app has no ChatStream: use --store URL\n",
    )
