"""For all tests: none leaves a thread behind; Triton kernels are interpreted where there is no GPU."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator

import pytest

if not glob.glob("/dev/nvidia[0-9]*"):  # torch would say it, too, but many tests need no torch
    os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is defined


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("chatstream-")]
    assert not left


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the suites of docs/reliability.md counted: `record_property("figure", "17,162 states")`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(f"FIGURE {report.nodeid.partition('::')[0]}: {value}")
