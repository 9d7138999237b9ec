"""`flask chatstream init-db` and `purge`."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from chatstream_flask import ChatStream
from chatstream_flask.cli.store_commands import init_db, purge
from chatstream_flask.conversation.json_file_cache import JSONFileCache
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
    assert run(init_db, app=app).output == "Nothing to do: a FileStore has no tables.\n"
    assert run(purge, app=app).output == "Removed: 0\n"


def test_an_app_without_a_chat(tmp_path: Path) -> None:
    without = run(purge, app=host(tmp_path))
    assert (without.exit_code, without.output) == (
        1,
        "Error: the app has no ChatStream: use --store URL\n",
    )


def keep_expired(folder: Path) -> None:
    cache = JSONFileCache(folder)
    cache.set("session:a", {"chatstream_conversation": "a"}, timeout=-10)
    cache.set("session:b", {"chatstream_conversation": "b"}, timeout=100)


def test_without_an_app_it_is_the_own_app_of_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(purge).output == "Removed: 0\n"
    assert list(tmp_path.iterdir()) == []
    keep_expired(tmp_path / "instance" / "chatstream")
    assert run(purge).output == "Removed: 1\n"
    assert run(purge).output == "Removed: 0\n"
    nothing = run(init_db)
    assert nothing.exit_code == 1
    assert "use --store URL" in nothing.output


@pytest.mark.parametrize("way", ["option", "environment"])
def test_session_files_beside_another_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///chat.db"
    args = ["--store", url] if way == "option" else []
    if way == "environment":
        monkeypatch.setenv("FLASK_CHATSTREAM_STORE", url)
        monkeypatch.setenv("FLASK_CHATSTREAM_STORE_DIR", str(tmp_path / "sessions"))
    run(init_db, *args)
    store = SQLStore(url, ttl_sec=0.001)
    lease = store.hold("a")
    lease.save({})
    lease.close()
    store.close()
    keep_expired(tmp_path / ("sessions" if way == "environment" else "instance/chatstream"))
    assert run(purge, *args).output == "Removed: 2\n"


def test_session_files_of_an_app_beside_its_store(tmp_path: Path) -> None:
    app = host(tmp_path)
    app.config["CHATSTREAM_STORE"] = "memory://"
    ChatStream(use_mock_response=True, app=app)
    keep_expired(tmp_path / "store")
    assert run(purge, app=app).output == "Removed: 1\n"
