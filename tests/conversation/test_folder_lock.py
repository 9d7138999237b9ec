"""Lock on the folder of the conversations: a second process would overwrite turns of the first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask_fakes import running_chat, say, talk

from chatstream_flask.cli.cli import cli
from chatstream_flask.conversation.folder_lock import FolderInUse, lock_folder

HOLD = """
import sys
from pathlib import Path
from chatstream_flask.cli.cli import cli
from chatstream_flask.conversation.folder_lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has locked the folder."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_a_folder_is_locked_until_its_process_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(FolderInUse, match=f"used by process {process.pid}, and a second one would"):
            lock_folder(tmp_path)
        process.kill()
        process.wait()
        lock_folder(tmp_path)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_serve_on_a_locked_folder_does_not_even_look_for_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loaded a model of gigabytes before it was refused."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "instance" / "chatstream"
    folder.mkdir(parents=True)
    with holder(folder) as process:
        result = CliRunner().invoke(cli, ["serve", "--model", "no-such-model"])
    assert result.exit_code == 1
    assert f"used by process {process.pid}, and a second one would" in result.output


def test_the_stores_of_one_process_share_the_lock(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    assert lock_folder(tmp_path / "link") is lock


def test_chats_on_the_folder_of_another_server_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not lock the folder at its start does so at its first chat."""
    with running_chat(tmp_path) as chat:
        with holder(tmp_path) as process:
            refused = say(chat.client(), "one")
            assert (refused.status_code, refused.get_json()["error"]) == (503, "store_unavailable")
            assert refused.get_json()["detail"] == "another process uses the folder of the conversations"
            assert f"used by process {process.pid}" in caplog.text
        assert talk(chat.client(), "one") == "ok"
