"""The real back ends of stores; Redis and PostgreSQL run once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from postgres_server import run_postgres
from redis_server import run_redis
from store_backends import (
    Backend,
    FilesBackend,
    FlaskSessionBackend,
    MemoryBackend,
    PostgreSQLBackend,
    RedisBackend,
    SQLBackend,
)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from run_redis(tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    yield from run_postgres()


def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "memory":
        return MemoryBackend()
    if request.param == "files":
        return FilesBackend(tmp_path / "store")
    if request.param == "redis":
        return RedisBackend(request.getfixturevalue("redis_port"))
    if request.param == "flask-session":
        return FlaskSessionBackend(request.getfixturevalue("redis_port"))
    if request.param == "sqlite":
        backend: SQLBackend = SQLBackend(f"sqlite:///{tmp_path / 'chat.db'}")
    else:
        backend = PostgreSQLBackend(request.getfixturevalue("postgres_port"))
    backend.new_store().create_or_migrate()
    return backend


@pytest.fixture(params=["memory", "files", "flask-session", "redis", "sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return the back end of each store in turn."""
    with closing(make_backend(request, tmp_path)) as backend:
        yield backend


@pytest.fixture(params=["redis", "sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return those that several processes can use at once."""
    with closing(make_backend(request, tmp_path)) as backend:
        yield backend
