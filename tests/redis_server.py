"""A real Redis on a free port, for one test session."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from chatstream_flask.client import free_port

NO_REDIS = "redis-server is not installed; scripts/test installs it where it can"


def run_redis(directory: Path, port: int | None = None, *, is_durable: bool = False) -> Iterator[int]:
    """Run a server; yield its port. One that is durable keeps in `directory` what it has at its end."""
    if shutil.which("redis-server") is None:
        pytest.skip(NO_REDIS)
    port = port or free_port()
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "yes" if is_durable else "no",
        "--dir",
        str(directory),
    ]
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            client = connect(port)
            client.ping()
            client.close()
            yield port
        finally:
            server.terminate()


def connect(port: int) -> redis.Redis:
    """Return a client, which retries until the server listens."""
    retry = Retry(ConstantBackoff(0.02), 500)
    return redis.Redis(port=port, retry=retry, retry_on_error=[redis.ConnectionError, OSError])
