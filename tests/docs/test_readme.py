"""The README: two screens, a first program that runs, links that lead somewhere, the same in Japanese."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from chatstream_flask import ChatStream

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_JA = (ROOT / "README_ja.md").read_text(encoding="utf-8")
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("readme", [README, README_JA], ids=["en", "ja"])


@BOTH
def test_it_is_read_in_two_screens(readme: str) -> None:
    assert len(readme.splitlines()) <= 150


def test_both_languages_show_the_same_code_and_figures() -> None:
    assert re.findall(r"```.*?```", README, re.DOTALL) == re.findall(r"```.*?```", README_JA, re.DOTALL)
    figures = re.compile(r"^\| [\d,| ]+\|$", re.MULTILINE)
    assert figures.findall(README) == figures.findall(README_JA) != []


@BOTH
def test_links_lead_somewhere(readme: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@BOTH
def test_every_page_is_named(readme: str) -> None:
    japanese = "docs/moving-from-chatstream_ja.md"
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"docs/index.md", japanese}
    assert {page for page in pages if page not in readme.replace("_ja.md", ".md")} == set()


def test_the_first_program_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, from its first import to a streamed answer."""
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    assert program.group(0) in QUICKSTART
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
        chat_stream.close()
