"""Sphinx configuration; `scripts/docs` builds the pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # autodoc imports the package from the source tree

VERSION = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)

project = "chatstream_flask"
author = "the chatstream_flask authors"
copyright = author
release = version = VERSION[1] if VERSION else ""

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["deploy"]
suppress_warnings = ["misc.highlighting_failure"]  # excerpts, such as JSON with "..."

myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "code"  # docstrings write `name` as Markdown does
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
nitpick_ignore_regex = [("py:.*", r".*")]  # types of Flask and of internal modules have no page here

html_theme = "furo"
html_title = f"chatstream_flask {release}"
html_copy_source = False


def to_restructured_text(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Make plain docstrings valid reStructuredText: code fences become blocks, stray markup is escaped.

    Docstrings of modules are left out; the pages say it in their own words.
    """
    is_code = is_field = False
    converted: list[str] = []
    for line in [] if what == "module" else lines:
        if line.strip().startswith("```"):
            is_code = not is_code
            converted += ["", ".. code-block:: python", ""] if is_code else [""]
            continue
        if is_code:
            converted.append(f"    {line}")
            continue
        if line and not line.startswith(" ") and is_field != line.startswith(":"):
            converted.append("")  # around a field list
        is_field = line.startswith(":") or (is_field and bool(line))
        converted.append(escaped(line))
    lines[:] = converted


def escaped(line: str) -> str:
    """Escape what would be markup outside of `code`."""
    markup = re.compile(r"[|*]|(?<=\w)_(?!\w)")
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(part if i % 2 else markup.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def setup(app: object) -> None:
    """Register the docstring conversion."""
    app.connect("autodoc-process-docstring", to_restructured_text)  # type: ignore[attr-defined]
