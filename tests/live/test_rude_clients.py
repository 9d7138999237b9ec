"""Clients that leave at any byte of their request or their answer: afterwards everything is as before."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from suite_size import size

from .client import TIMEOUT_SEC
from .health import check_well
from .holdings import nothing_is_left, num_kept
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_AT_ONCE = 4  # as many as leave cores for the client that talks meanwhile
BODY = json.dumps({"user_input": "hello " * 20}).encode()
HEAD = (
    b"POST /api/chat_stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nAccept: text/event-stream\r\n"
)
CHAT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
REQUESTS = [
    CHAT,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 4,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3,  # as TLS begins
]
WAYS = ["reset", "close", "half-close"]
NUM_KEPT_BY_NORMAL_CLIENTS = 6  # files of each: its session, its conversation and its list of conversations
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mock = {"type": "echo", "time_per_token_sec": 0.001}
    options = {"num_of_concurrent_executions": 2 * NUM_AT_ONCE, "max_queue_size": 200}
    folder = tmp_path_factory.mktemp(f"{kind}-rude")
    with start_mock(kind, folder, mock, config={"CHATSTREAM_RESUME_SEC": 0.0}, **options) as server:
        visit_all(server, [(CHAT, len(CHAT), 100, way) for way in WAYS * NUM_AT_ONCE])  # all threads run now
        server.check_idle()
        yield server


def visit(server: Server, request: bytes, num_sent: int, num_read: int, way: str) -> int:
    """Send some bytes, read up to some, and leave; return how many were read."""
    num = 0
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC) as sock, suppress(OSError):
        sock.sendall(request[:num_sent])
        while num < num_read and (data := sock.recv(num_read - num)):
            num += len(data)
        if way == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == "half-close":
            sock.settimeout(1)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
    return num


def visit_all(server: Server, visits: list[tuple[bytes, int, int, str]]) -> None:
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(lambda visit_: visit(server, *visit_), visits))


def test_clients_that_leave_at_every_byte_of_a_request(server: Server, record_property: Record) -> None:
    """One that is not complete creates no session and no conversation."""
    visits = [
        (request, num_sent, 0, way)
        for request in REQUESTS
        for way in WAYS
        for num_sent in range(WAYS.index(way), len(request), size(37, 1))
    ]
    num_before = num_kept(server)
    with nothing_is_left(server):
        visit_all(server, visits)
    assert num_kept(server) <= num_before + NUM_KEPT_BY_NORMAL_CLIENTS
    check_well(server)
    assert "Traceback" not in server.output and "A connection failed" not in server.output
    record_property("figure", f"{len(visits):,} clients left within their request, and nothing of them")


def test_clients_that_leave_at_every_byte_of_an_answer(server: Server, record_property: Record) -> None:
    length = visit(server, CHAT, len(CHAT), 10**6, "close")
    assert length > 1000
    visits = [
        (CHAT, len(CHAT), num_read, way)
        for way in WAYS
        for num_read in range(WAYS.index(way), length, size(97, 1))
    ]
    with nothing_is_left(server):
        visit_all(server, visits)
    check_well(server)
    assert "Traceback" not in server.output and "A connection failed" not in server.output
    record_property("figure", f"{len(visits):,} clients left within their answer, and nothing of them")


def test_a_client_that_leaves_before_it_is_told_to_continue(server: Server) -> None:
    """Its connection was logged as a failure of the server, with a traceback."""
    head = REQUESTS[2].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    pid = server.state["pid"]
    os.kill(pid, signal.SIGSTOP)  # so that it reads the head after the reset
    try:
        visit(server, head, len(head), 0, "reset")
    finally:
        os.kill(pid, signal.SIGCONT)
    check_well(server)
    assert "Traceback" not in server.output and "A connection failed" not in server.output
