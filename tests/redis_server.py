"""A real Redis on a free port, for one test session."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

NO_REDIS = "redis-server is not installed; scripts/test installs it where it may"


def run_redis(directory: Path) -> Iterator[int]:
    """Gives its port."""
    if shutil.which("redis-server") is None:
        pytest.skip(NO_REDIS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
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
    """Waits until it listens."""
    retry = Retry(ConstantBackoff(0.02), 500)
    return redis.Redis(port=port, retry=retry, retry_on_error=[redis.ConnectionError])
