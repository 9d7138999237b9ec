"""The tests under every supported Python and under the oldest supported dependencies.

Run all sessions with `nox`, one with `nox --session tests-3.12`. What follows `--` goes to pytest.
"""

from __future__ import annotations

from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = [name for name in PYPROJECT["optional-dependencies"] if name != "test"]
COMPUTING = ("--ignore", "tests/live", "--numprocesses", "2")

nox.options.sessions = ["tests", "lowest"]


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests that need no real server, with the newest dependencies."""
    session.install("--editable", ".[test]")
    session.run("pytest", *(session.posargs or COMPUTING))


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run them with the oldest dependencies that pyproject.toml allows, and the newest test tools."""
    pins = Path(session.create_tmp()) / "lowest.txt"
    session.install("uv")
    extras = [argument for name in EXTRAS for argument in ("--extra", name)]
    options = ["--resolution", "lowest-direct", "--python", session.python, *extras]
    session.run("uv", "pip", "compile", "--quiet", *options, "pyproject.toml", "--output-file", str(pins))
    session.install("--constraint", str(pins), "--editable", f".[{','.join([*EXTRAS, 'test'])}]")
    session.run("pytest", *(session.posargs or COMPUTING))


@nox.session(python="3.12")
def coverage(session: nox.Session) -> None:
    """Run all tests, those of real servers too, and write build/coverage/index.html."""
    session.install("--editable", ".[test]")
    session.run("pytest", "--cov", "--cov-report=term", "--cov-report=html:build/coverage", *session.posargs)
