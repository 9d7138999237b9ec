"""The tables of docs/configuration.md, written from the code: `python scripts/configuration_tables.py`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
sys.path.insert(0, str(ROOT))

from chatstream_flask import ChatStream  # noqa: E402
from chatstream_flask.settings import describe  # noqa: E402


def updated(page: str) -> str:
    """Return the page with its tables as the code has them now."""
    page = _with_table(page, "constructor", _constructor_rows())
    return _with_table(page, "settings", _settings_rows())


def _constructor_rows() -> Iterator[str]:
    doc = inspect.getdoc(ChatStream) or ""
    texts = {
        name: " ".join(text.split())
        for name, text in re.findall(r"^:param (\w+): (.*?)(?=^:|\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    }
    yield from ("| argument | default | meaning |", "|---|---|---|")
    for parameter in list(inspect.signature(ChatStream.__init__).parameters.values())[1:]:
        yield _row(parameter.name, parameter.default, texts[parameter.name])


def _settings_rows() -> Iterator[str]:
    yield from ("| key | default | meaning |", "|---|---|---|")
    for key in describe():
        yield _row(key.name, key.default, key.text)


def _row(name: str, default: object, text: str) -> str:
    meaning = text.replace("|", "\\|")
    return f"| `{name}` | `{default!r}` | {meaning} |"


def _with_table(page: str, name: str, rows: Iterator[str]) -> str:
    begin, end = f"<!-- {name}: written by scripts/docs -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        raise ValueError(f"{PAGE} has no place for the table {name!r}")
    return f"{before}{begin}\n" + "\n".join(rows) + f"\n\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
