"""Servers shared by these tests; each test of a chat runs under waitress and under gunicorn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from .server import Server, alive, start, start_mock

LONG_MOCK = {"type": "long", "time_per_token_sec": 0.1}  # about 30 s per reply
SILENT_MOCK = {"type": "long", "initial_wait_sec": 60.0}
KINDS = ["waitress", "gunicorn"]
SESSION_SERVERS = re.compile("(demo|long|silent)_server")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return SharedServersScheduling(config, log)


class SharedServersScheduling(LoadScopeScheduling):
    """Runs tests that share a server in one worker of `pytest -n`, so that it is started once.

    The groups of `--dist loadgroup` would do the same, but pytest 9.2 hides them from pytest-xdist 3.8, and
    `--last-failed` does not find grouped tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        path, _, test = nodeid.partition("::")
        source = (self.config.rootpath / path).read_text(encoding="utf-8")
        kind = next((kind for kind in KINDS if kind in test), "")
        if SESSION_SERVERS.search(source):
            return kind or path
        return f"{path} {kind}" if 'scope="module"' in source else nodeid


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def demo_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the demo model on 2 + 5 places, greedy; one worker thread, so that replies are batched."""
    with start(kind, tmp_path_factory.mktemp(f"{kind}-demo"), num_of_generation_threads=1) as server:
        yield server


@pytest.fixture(scope="session")
def long_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock on 2 + 5 places whose replies outlast a test."""
    folder = tmp_path_factory.mktemp(f"{kind}-long")
    with start_mock(kind, folder, LONG_MOCK, too_many_request_as_http_error=True) as server:
        yield server


@pytest.fixture(scope="session")
def silent_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock on 2 + 5 places whose replies get a slot but produce no text."""
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-silent"), SILENT_MOCK) as server:
        yield server


@pytest.fixture(autouse=True)
def shown_output() -> Iterator[None]:
    """Print the end of each server's output, for the report of a failed test."""
    yield
    for server in alive:
        print(f"--- {server.folder.name}\n{server.output[-4000:]}")
