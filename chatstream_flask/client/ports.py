"""Ports of 127.0.0.1."""

from __future__ import annotations

import random
import socket
import time
from contextlib import suppress

POLL_SEC = 0.02


def free_port() -> int:
    """Return a port below those that the system gives to outgoing connections, so that it stays free."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_open(port: int) -> bool:
    """Return whether a server listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_open(port: int, timeout_sec: float) -> None:
    """Wait until a server listens on the port.

    :raises TimeoutError: none does within `timeout_sec`
    """
    deadline = time.monotonic() + timeout_sec
    while not is_open(port):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no server listens on port {port} after {timeout_sec:.0f} s")
        time.sleep(POLL_SEC)
