"""Bytes that are no good request: a 4xx with a sentence, never a 5xx, and the server goes on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from .client import TIMEOUT_SEC
from .health import check_well
from .server import Server, start_mock

pytestmark = pytest.mark.server

HEAD = b"POST /chat_stream HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = json.dumps({"user_input": "hi"}).encode()
CHAT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
QUESTION = json.dumps({"model": "mock", "prompt": "hi"}).encode()
WHOLE = (
    HEAD.replace(b"/chat_stream", b"/v1/completions")
    + b"Content-Length: %d\r\n\r\n" % len(QUESTION)
    + QUESTION
)

BAD = {
    "a chunk size that is no number": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    "a chunk extension that is none": CHUNKED + b"5;\x01\r\nhello\r\n0\r\n\r\n",
    "bad chunks for a view that reads no body": HEALTH[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "bad chunks for the OpenAI API": CHUNKED.replace(b"/chat_stream", b"/v1/completions") + b"zz\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length with too many digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: -1\r\n\r\n",
    "a body above the limit": HEAD + b"Content-Length: 1100000\r\n\r\n" + b" " * 70_000,
    "a chunked body above the limit": CHUNKED + b"200000\r\n" + b" " * 1_048_600,
    "a broken IPv6 address": HEALTH.replace(b"/health", b"http://[::1/health"),
    "a path that is no ASCII": HEALTH.replace(b"/live", b"/\xff\xfe"),
    "a huge head": HEALTH[:-2] + (b"A: " + b"b" * 8000 + b"\r\n") * 120,
    "no UTF-8": HEAD + b'Content-Length: 18\r\n\r\n{"user_input":"\xff"}',
    "garbage behind a request": HEALTH + b"\x00\xff garbage\r\n\r\n",
    "a broken IPv6 address behind a request": WHOLE + HEALTH.replace(b"/health", b"http://[::1/health"),
    "two lengths behind a request": HEALTH + HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a body above the limit behind a request": HEALTH + HEAD + b"Content-Length: 1100000\r\n\r\n",
}

CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
AMBIGUOUS = {  # where the request ends, or for whom it is
    "a short length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a long length and chunks": HEAD + b"Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "a coding that nobody knows": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "a control character in the coding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "lines that end without CR": HEAD.replace(b"\r\n", b"\n") + LENGTH.replace(b"\r\n", b"\n") + BODY,
    "chunks that end without CR": CHUNKED + CHUNKS.replace(b"\r\n", b"\n"),
    "a chunk size with 0x": CHUNKED + b"0x" + CHUNKS,
    "a length with a sign": HEAD + LENGTH.replace(b": ", b": +") + BODY,
    "two equal lengths": HEAD + LENGTH[:-2] + LENGTH + BODY,
    "two hosts": HEAD + b"Host: b\r\n" + LENGTH + BODY,
    "chunks in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKS,
}


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mock = {"type": "echo", "time_per_token_sec": 0.0}
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-bad"), mock) as server:
        yield server


def answers(server: Server, data: bytes, num: int = 1) -> list[int]:
    """Return the statuses of `num` answers, or of all until the server ends the connection."""
    raw = b""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC) as sock:
        try:
            sock.sendall(data)
            while len(found := re.findall(rb"HTTP/1\.[01] (\d{3}) ", raw)) < num and (
                more := sock.recv(65536)
            ):
                raw += more
        except (BrokenPipeError, ConnectionResetError):  # it does not take all that we send
            found = re.findall(rb"HTTP/1\.[01] (\d{3}) ", raw)
    return [int(status) for status in found]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_400_and_something(server: Server, name: str) -> None:
    statuses = answers(server, BAD[name], num=2 if "behind" in name else 1)
    assert statuses, "no answer"
    assert 400 <= statuses[-1] < 500
    check_well(server)
    assert "Traceback" not in server.output and "uncaptured" not in server.output


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_no_request_hides_in_another(server: Server, name: str) -> None:
    """A proxy in front that reads it otherwise would take the second answer for somebody else's."""
    statuses = answers(server, AMBIGUOUS[name] + HIDDEN, num=2)
    assert len(statuses) == 1 and statuses[0] in (400, 501)  # 501: the coding is not known
    server.check_idle()


def test_requests_in_one_go_are_answered_in_order(server: Server) -> None:
    """A stream ends the connection under waitress, so later requests on it are not answered."""
    assert answers(server, HEALTH * 5, num=5) == [200] * 5
    statuses = answers(server, HEALTH + CHAT + HEALTH, num=3)
    assert statuses in ([200] * 3, [200] * 2)
    server.check_idle()


def test_a_client_that_waits_for_100_continue(server: Server) -> None:
    head, _, body = CHAT.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC) as sock:
        sock.sendall(head + b"\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        raw = b""
        while more := sock.recv(65536):
            raw += more
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n") and raw.count(b"HTTP/1.1") == 1
