"""What the README says about settings and the first program is held against the code."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.settings import Settings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def table_rows(header: str) -> dict[str, str]:
    """First and second column, both in backticks, of the table that begins with this header."""
    table = README[README.index(header) :].split("\n\n", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", table, re.MULTILINE))


def test_every_argument_stands_in_the_readme_with_its_default() -> None:
    parameters = list(inspect.signature(ChatStream.__init__).parameters.values())[1:]
    assert table_rows("| argument | default |") == {p.name: repr(p.default) for p in parameters}


def test_every_config_key_stands_in_the_readme_with_its_default() -> None:
    expected = {f"CHATSTREAM_{field.name.upper()}": repr(field.default) for field in fields(Settings)}
    assert table_rows("| key | default |") == expected


def test_the_first_program_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, from its first import to a streamed answer."""
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    assert len(program.group(1).splitlines()) <= 16
    path = tmp_path / "app.py"
    path.write_text(program.group(1))
    names: dict[str, object] = {"__name__": "app", "__file__": str(path)}
    exec(compile(program.group(1), str(path), "exec"), names)
    app, chat_stream = names["app"], names["chat_stream"]
    assert isinstance(app, Flask) and isinstance(chat_stream, ChatStream)
    try:
        answer = app.test_client().post("/chat_stream", json={"user_input": "Hello!"})
        assert answer.status_code == 200
        assert len(answer.text) > 5
    finally:
        chat_stream.engine.stop()
