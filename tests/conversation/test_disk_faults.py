"""Chats whose files lie on a disk that is full, read-only or away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient
from flask_fakes import Chat, running_chat, say, talk

from chatstream_flask.conversation import FileStore
from chatstream_flask.conversation.file_sessions import file_session_interface
from chatstream_flask.errors import StoreUnavailable
from chatstream_flask.views import create_operations_blueprint


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def chat(disk: Path) -> Iterator[Chat]:
    with running_chat(disk / "store") as chat:
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        yield chat


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def check_refused(chat: Chat, *clients: FlaskClient) -> None:
    for client in clients:
        response = say(client, "two")
        assert (response.status_code, response.content_type) == (503, "application/problem+json")
        assert response.get_json()["error"] == "store_unavailable"
        assert response.headers["Retry-After"] == "5"
        assert client.get("/health/live").status_code == 200
    assert len(chat.runner.prompts) == 1  # nothing was generated in vain


def test_a_full_disk(chat: Chat, disk: Path) -> None:
    client = chat.client()
    talk(client, "one")
    filler = fill(disk)
    check_refused(chat, client, chat.client())
    assert chat.history(client) == ["one", "ok"]
    filler.unlink()
    talk(client, "two")
    assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_a_turn_that_does_not_fit_onto_the_disk_leaves_no_part_of_it(disk: Path) -> None:
    app = Flask("host")
    store = FileStore(app, file_session_interface(app, disk / "store"))
    record = {"said": ["one"]}
    lease: Any = store.hold("a")
    assert lease.save(record)
    (path,) = (path for path in (disk / "store").iterdir() if path.name != "lock")
    before = path.read_bytes()
    filler = fill(disk)
    for size in (10_000, 2_000_000):  # some of it fits into the last block
        with pytest.raises(StoreUnavailable):
            lease.save({"said": ["one", "x" * size]})
        assert path.read_bytes() == before
    filler.unlink()
    assert lease.save({"said": ["one", "two"]})
    assert path.read_bytes().startswith(before)
    assert store.load("a") == {"said": ["one", "two"]}
    lease.close()


def test_a_disk_that_became_read_only(chat: Chat, disk: Path) -> None:
    client = chat.client()
    talk(client, "one")
    for options in ("bind", "remount,bind,ro"):  # above the old mount, as that has an open file
        subprocess.run(["mount", "-o", options, str(disk), str(disk)], check=True)
    check_refused(chat, client, chat.client())
    assert chat.history(client) == ["one", "ok"]
    subprocess.run(["umount", str(disk)], check=True)
    talk(client, "two")
    assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_a_folder_that_is_away(tmp_path: Path) -> None:
    with running_chat(tmp_path / "store") as chat:
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        client = chat.client()
        talk(client, "one")
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").write_text("")
        check_refused(chat, client, chat.client())
        assert client.get("/history").status_code == 503
        (tmp_path / "store").unlink()
        (tmp_path / "away").rename(tmp_path / "store")
        assert chat.history(client) == ["one", "ok"]


def test_a_session_that_cannot_be_written_is_a_refusal_and_no_page(disk: Path) -> None:
    with running_chat(disk / "store") as chat:

        @chat.app.get("/visits")
        def visits() -> str:
            session["visits"] = "x" * 10_000
            return "visited"

        filler = fill(disk)
        response = chat.client().get("/visits")
        assert (response.status_code, response.content_type) == (503, "application/problem+json")
        assert (response.get_json()["error"], response.headers["Retry-After"]) == ("store_unavailable", "5")
        assert "Set-Cookie" not in response.headers
        filler.unlink()
        assert chat.client().get("/visits").status_code == 200
