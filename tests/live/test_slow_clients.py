"""Clients that send or read slowly: none occupies a thread, so health and chats respond meanwhile."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from .client import TIMEOUT_SEC, Visitor, beside
from .health import check_well
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_CLIENTS = 40  # more than the server has threads
CLIENT_TIMEOUT_SEC = 3.0
HEAD = b"POST /chat_stream HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LENGTH = HEAD + b"Content-Length: 30\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = {"CHATSTREAM_CLIENT_TIMEOUT_SEC": CLIENT_TIMEOUT_SEC}
    mock = {"type": "echo", "time_per_token_sec": 0.0}
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-slow"), mock, config=config) as server:
        yield server


@contextmanager
def connections(server: Server, num: int, first: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = []
        for _ in range(num):
            sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC)
            sockets.append(stack.enter_context(sock))
            if first:
                sock.sendall(first)
        yield sockets


@contextmanager
def dribbling(sockets: list[socket.socket], data: bytes, pause_sec: float) -> Iterator[None]:
    """Let each client send one byte of its data after each pause."""

    def dribble(is_over: threading.Event) -> None:
        for i in range(len(data)):
            if is_over.wait(pause_sec):
                return
            for sock in sockets:
                with suppress(OSError):  # closed by the server
                    sock.send(data[i : i + 1])

    with beside(dribble):
        yield


@pytest.mark.parametrize(
    "sent", [b"", b"P", HEAD, LENGTH, LENGTH + b'{"user', CHUNKED, CHUNKED + b'7\r\n{"user'], ids=range(7)
)
def test_clients_that_stop_sending(server: Server, sent: bytes) -> None:
    with connections(server, NUM_CLIENTS, sent):
        check_well(server)
    server.check_idle()


@pytest.mark.parametrize(
    ("sent", "dribbled"),
    [(b"", HEAD), (LENGTH, b'{"user_input": "'), (CHUNKED, b'1\r\n{\r\n1\r\n"\r\n1\r\n')],
    ids=["head", "body", "chunks"],
)
def test_clients_that_dribble_are_cut_off_in_the_end(server: Server, sent: bytes, dribbled: bytes) -> None:
    with connections(server, NUM_CLIENTS, sent) as sockets, dribbling(sockets, dribbled, 0.5):
        check_well(server)
        sockets[0].settimeout(CLIENT_TIMEOUT_SEC + 3)
        started_at = time.monotonic()
        answer = sockets[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"Connection: close\r\n" in answer
        print(f"cut off after {time.monotonic() - started_at:.1f} s more")
        check_well(server)
    server.check_idle()


def test_one_silent_connection_more_than_there_may_be(server: Server) -> None:
    """The oldest connections are closed to make room."""
    with connections(server, 1100 if "gunicorn" in server.folder.name else 600, b"") as sockets:
        check_well(server)
        sockets[0].settimeout(TIMEOUT_SEC)
        assert sockets[0].recv(1) == b""
    server.check_idle()


def test_connections_leave_files_for_the_rest(kind: str, tmp_path: Path) -> None:
    """Also where a process may open few: conversations are files here."""
    with start_mock(kind, tmp_path, {"type": "echo"}, max_files=250) as server:
        with connections(server, 300, b""):
            check_well(server)
        server.check_idle()
        assert "Too many open files" not in server.output


def test_answered_clients_that_do_not_close_stop_nobody(server: Server) -> None:
    """The server waits a moment for their side to be closed, but not with its main loop."""
    last = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connections(server, NUM_CLIENTS, last) as sockets:
        for sock in sockets:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        check_well(server)


def test_clients_that_do_not_read_their_answers(kind: str, tmp_path: Path) -> None:
    """Each asks for more than the buffers between two sockets take."""
    config = {
        "CHATSTREAM_CLIENT_TIMEOUT_SEC": CLIENT_TIMEOUT_SEC,
        "CHATSTREAM_MAX_INPUT_LEN": 10_000_000,
        "CHATSTREAM_MAX_BODY_LEN": 10_000_000,
    }
    mock = {"type": "echo", "time_per_token_sec": 0.0}
    options = {"context_len": 10_000_000, "num_of_concurrent_executions": 1, "max_queue_size": 0}
    with start_mock(kind, tmp_path, mock, config=config, **options) as server:
        with Visitor(server.port, path="/api/chat_stream") as visitor:
            visitor.ask(" ".join(["x" * 100_000] * 25))
            cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.session.cookies)
        get = f"GET /api/conversation HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n".encode()
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(NUM_CLIENTS // 2)]
            for sock in sockets:
                sock.settimeout(TIMEOUT_SEC)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", server.port))
                sock.sendall(get)
            for sock in sockets:
                assert sock.recv(17) == b"HTTP/1.1 200 OK\r\n"
            check_well(server)
            threading.Event().wait(CLIENT_TIMEOUT_SEC + 2)  # nothing to see for one that reads nothing
            answer = read_to_end(sockets[0])
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None and len(body) < int(length[1])
            check_well(server)


def read_to_end(sock: socket.socket) -> bytes:
    data = b"HTTP/1.1 200 OK\r\n"
    with suppress(ConnectionResetError):
        while more := sock.recv(1_000_000):
            data += more
    return data
