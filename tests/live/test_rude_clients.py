"""Clients that leave at any byte of their request or their answer: afterwards everything is as before."""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from .client import TIMEOUT_SEC, Visitor, wait_until
from .health import check_well
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_CLIENTS = 400
BODY = json.dumps({"user_input": "hello " * 20}).encode()
HEAD = b"POST /api/chat_stream HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
REQUESTS = [
    HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 4,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mock = {"type": "echo", "time_per_token_sec": 0.001}
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-rude"), mock) as server:
        yield server


def be_rude(port: int, seed: int) -> None:
    rng = random.Random(seed)
    request = rng.choice(REQUESTS)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SEC) as sock, suppress(OSError):
        sock.settimeout(rng.choice([0.001, 0.01, 0.1]))
        sock.sendall(request[: rng.randint(0, len(request))])
        if rng.random() < 0.5:
            sock.recv(rng.randint(1, 2000))
        way = rng.choice(["close", "reset", "half-close"])
        if way == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == "half-close":
            sock.shutdown(socket.SHUT_WR)
            sock.recv(rng.randint(1, 2000))


def num_connections(server: Server) -> int:
    return len(psutil.Process(server.state["pid"]).net_connections("tcp"))


def test_nothing_is_left_of_clients_that_leave_anywhere(server: Server) -> None:
    with Visitor(server.port) as visitor:
        visitor.ask("hello")
    wait_until(lambda: num_connections(server) <= 2)  # the listener, and the one that asks
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda seed: be_rude(server.port, seed), range(NUM_CLIENTS)))
    check_well(server)
    server.check_idle()
    wait_until(lambda: num_connections(server) <= 2)
    assert "Traceback" not in server.output and "A connection failed" not in server.output
