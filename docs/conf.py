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
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_title = f"chatstream_flask {release}"
html_static_path: list[str] = []
html_extra_path = ["deploy"]
html_copy_source = False


def fences_to_blocks(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn Markdown code fences in a docstring into reStructuredText code blocks."""
    is_code = False
    converted: list[str] = []
    for line in lines:
        if line.strip().startswith("```"):
            is_code = not is_code
            converted += [".. code-block:: python", ""] if is_code else [""]
        else:
            converted.append(f"    {line}" if is_code else line)
    lines[:] = converted


def setup(app: object) -> None:
    """Register the docstring conversion."""
    app.connect("autodoc-process-docstring", fences_to_blocks)  # type: ignore[attr-defined]
