"""The `chat` command, with click's runner and in a pseudo-terminal."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import TIMEOUT

from chatstream_flask.cli.cli import cli
from chatstream_flask.cli.console_words import ENGLISH, JAPANESE, words_of_locale
from chatstream_flask.mock.phrases import LONG, ROUND

QUICK = ("--mock-seconds-per-token", "0")


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.chdir(tmp_path)


def chat(*lines: str, args: tuple[str, ...] = ("--mock", "round", *QUICK)) -> tuple[int, list[str], str]:
    """Return the exit code, stdout and stderr."""
    result = CliRunner().invoke(cli, ["chat", *args], input="".join(f"{line}\n" for line in lines))
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_piped_lines_are_answered_in_turn_and_nothing_else_goes_to_stdout() -> None:
    assert chat("Hello!", "", "  And now?  ") == (0, [ROUND[0], ROUND[1]], "")


def test_the_last_line_needs_no_end() -> None:
    result = CliRunner().invoke(cli, ["chat", "--mock", "echo", *QUICK], input="Hello!")
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")


def test_commands() -> None:
    code, said, told = chat(
        "/regenerate", "Hello!", "/regenerate", "two", "/clear", "one", "/nope", "/quit", "x"
    )
    assert (code, said) == (0, [ROUND[0], ROUND[0], ROUND[1], ROUND[0]])
    assert told.splitlines() == [
        ENGLISH.nothing_to_regenerate,
        ENGLISH.cleared,
        "[unknown command /nope: use /regenerate, /clear, /help or /quit]",
    ]


def test_the_model_knows_what_was_said_before() -> None:
    code, said, told = chat("My name is Hanako.", "What is my name?", args=("--temperature", "0"))
    assert code == 0
    assert said == ["Nice to meet you, Hanako!", "Your name is Hanako."]
    assert "Loading" in told and "Loaded in" in told


def test_a_message_that_is_too_long_is_told_and_leaves_the_conversation_as_it_was() -> None:
    long = "What is my name? " * 300
    code, said, told = chat("My name is Hanako.", long, "What is my name?", args=("--temperature", "0"))
    assert code == 1
    assert said == ["Nice to meet you, Hanako!", "Your name is Hanako."]
    assert ENGLISH.too_long in told


def test_a_wrong_option_is_a_sentence() -> None:
    code, _, told = chat("Hello!", args=("--mock", "round", "--temperature", "3"))
    assert code == 1
    assert "Error: temperature must be between 0 and 2, not 3.0" in told


def test_the_model_of_an_app(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from flask import Flask\n"
        "from chatstream_flask import ChatStream\n"
        "app = Flask(__name__, instance_path='/nowhere')\n"
        f"app.config['CHATSTREAM_STORE_DIR'] = {str(tmp_path / 'store')!r}\n"
        "params = {'type': 'echo', 'time_per_token_sec': 0}\n"
        "ChatStream(use_mock_response=True, mock_params=params, app=app)\n"
    )
    command = [sys.executable, "-m", "flask", "--app", "app", "chatstream", "chat"]
    done = subprocess.run(command, input="Hello!\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Hello!\n")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ENGLISH),
        ({"LANG": "ja_JP.UTF-8"}, JAPANESE),
        ({"LC_ALL": "en_GB.UTF-8", "LANG": "ja_JP.UTF-8"}, ENGLISH),
        ({"LC_ALL": "", "LC_MESSAGES": "ja_JP.UTF-8"}, JAPANESE),
    ],
)
def test_the_language_is_that_of_the_locale(
    variables: dict[str, str], words: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert words_of_locale() is words


class Terminal:
    """Other side of a pseudo-terminal: what a person types and sees."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.seen = ""
        self._bytes = b""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt_idle(self, expected: str) -> None:
        """Press Ctrl-C until it has an effect.

        Python misses one that comes after it has written the prompt and before it waits for keys.
        """
        for _ in range(int(3 * TIMEOUT)):
            self.type("\x03")
            if self._comes(expected, 1.0):
                break
        self.wait_for(expected)

    def wait_for(self, text: str) -> None:
        """Wait until the text appears after that of the last wait."""
        assert self._comes(text, 3 * TIMEOUT), f"{text!r} did not come: {self.seen!r}"
        rest = self.seen.partition(text)[2]
        self._bytes, self.seen = rest.encode(), rest

    def _comes(self, text: str, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
                return False
            self._bytes += os.read(self._master, 65536)
            self.seen = self._bytes.decode(errors="ignore")
        return True


@contextmanager
def terminal(*command: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    master, slave = os.openpty()
    environ = os.environ | {"LC_ALL": "ja_JP.UTF-8", "PYTHONUTF8": "1", "TERM": "dumb"}
    without_sigint = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]  # as for a background program
    setsid = ["setsid", "--ctty", *without_sigint]  # so that Ctrl-C becomes a signal
    with subprocess.Popen(setsid, stdin=slave, stdout=slave, stderr=slave, env=environ) as process:
        os.close(slave)
        try:
            yield Terminal(master), process
        finally:
            process.kill()
            os.close(master)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid of util-linux is missing")
def test_in_a_terminal_ctrl_c_stops_the_reply_and_not_the_program() -> None:
    command = [sys.executable, "-m", "chatstream_flask", "chat", "--mock", "long"]
    with terminal(*command) as (person, process):
        person.wait_for("Ctrl-C は返答を止める")
        person.wait_for("> ")
        person.type("こんにちは\n")
        person.wait_for(" ".join(LONG.split()[:3]))
        person.type("\x03")
        person.wait_for(JAPANESE.stopped)
        person.wait_for("> ")
        person.interrupt_idle(JAPANESE.how_to_end)
        person.wait_for("> ")
        person.type("/regenerate\n")
        person.wait_for(" ".join(LONG.split()[:3]))
        person.type("\x03")
        person.wait_for("> ")
        person.type("\x04")
        assert process.wait(TIMEOUT) == 0
