"""Servers shared by these tests; each test of a chat runs under waitress and under gunicorn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import Server, alive, start, start_mock

LONG_MOCK = {"type": "long", "time_per_token_sec": 0.1}  # about 30 s per reply
SILENT_MOCK = {"type": "long", "initial_wait_sec": 60.0}


SHARED = {"browser", "demo_server", "echo_server", "long_server", "ports", "server", "silent_server"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file that share a server in one worker of `pytest -n`."""
    for item in items:
        if isinstance(item, pytest.Function) and SHARED & set(item.fixturenames):
            kind = item.callspec.params.get("kind", "") if hasattr(item, "callspec") else ""
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {kind}"))


@pytest.fixture(scope="session", params=["waitress", "gunicorn"])
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
