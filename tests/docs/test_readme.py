"""What the README says about settings and the first program is held against the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.settings import Settings
from chatstream_flask.views import API_NAMES, create_chat_blueprint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_JA = (ROOT / "README_ja.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("readme", [README, README_JA], ids=["en", "ja"])


def defaults_in(readme: str, pattern: str) -> dict[str, str]:
    """First and second column, both in backticks, of the rows of the settings' tables."""
    return dict(re.findall(rf"^\| `({pattern})` \| `(.*?)` \|", readme, re.MULTILINE))


@BOTH
def test_every_argument_stands_in_the_readme_with_its_default(readme: str) -> None:
    parameters = list(inspect.signature(ChatStream.__init__).parameters.values())[1:]
    assert defaults_in(readme, "[a-z_]+") == {p.name: repr(p.default) for p in parameters}


@BOTH
def test_every_config_key_stands_in_the_readme_with_its_default(readme: str) -> None:
    expected = {f"CHATSTREAM_{field.name.upper()}": repr(field.default) for field in fields(Settings)}
    assert defaults_in(readme, "CHATSTREAM_[A-Z_]+") == expected


@BOTH
def test_every_api_stands_in_the_readme_with_its_name(readme: str) -> None:
    rows = re.findall(r"^\| `((?:GET|POST) /\S*)` \| `(\w+)` \|", readme, re.MULTILINE)
    chat_stream = ChatStream(use_mock_response=True)
    assert sorted(rows) == sorted((route, name) for name in API_NAMES for route in routes(chat_stream, name))


def routes(chat_stream: ChatStream, name: str) -> Iterator[str]:
    """Of one API, without files of the page."""
    app = Flask("routes", static_folder=None)
    app.register_blueprint(create_chat_blueprint(chat_stream, include=[name]))
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/chatstream_ui/"):
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            yield f"{method} {rule.rule}"


def test_both_languages_show_the_same_code() -> None:
    assert re.findall(r"```.*?```", README, re.DOTALL) == re.findall(r"```.*?```", README_JA, re.DOTALL)


@BOTH
def test_links_lead_somewhere(readme: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


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
