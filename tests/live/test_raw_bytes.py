"""HTTP requests with bytes changed at random: never a 5xx, never a traceback, and nothing is left of them."""

from __future__ import annotations

import json
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from suite_size import size

from .client import TIMEOUT_SEC
from .health import check_well
from .holdings import nothing_is_left
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_INPUTS = size(200, 5_000)  # on each server
NUM_AT_ONCE = 16
QUIET_SEC = 0.2  # after which a server that says nothing waits for more of the request
RIGHT_5XX = {501, 505}  # the transfer coding, or the version of HTTP, is not known


def request(method: str, path: str, body: object = None, *, headers: str = "", chunk: int = 0) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
    if not data:
        return f"{head}\r\n".encode()
    head += "Content-Type: application/json\r\n"
    if not chunk:
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    pieces = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


CHAT = {"user_input": "Hello, 世界!", "temperature": 0.5, "max_new_tokens": 5, "stop": ["a"]}
TALK = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "n": 1, "logit_bias": {"5": 1}}
SEEDS = [
    request(
        "POST", "/api/chat_stream", CHAT, headers="Accept: text/event-stream\r\nCookie: session=a; b=c\r\n"
    ),
    request("POST", "/api/chat_stream", CHAT, chunk=7),
    request("POST", "/api/chat_stream", {"regenerate": True}, headers="Origin: http://127.0.0.1\r\n"),
    request("POST", "/api/set_generation_params", {"temperature": 0.1, "seed": 2**63}),
    request("POST", "/api/set_feedback", {"message_id": "x", "is_like": True, "form_data": {}}),
    request("POST", "/api/clear_context", {}, headers="Expect: 100-continue\r\n"),
    request(
        "POST", "/v1/chat/completions", TALK | {"stream": True, "stream_options": {"include_usage": True}}
    ),
    request(
        "POST", "/v1/chat/completions", TALK | {"tools": [], "response_format": {"type": "text"}}, chunk=50
    ),
    request("POST", "/v1/completions", {"model": "mock", "prompt": ["a", "b"], "logprobs": 2, "echo": True}),
    request("GET", "/v1/models/mock", headers="Authorization: Bearer abcdefghijklmnop\r\n"),
    request("GET", "/api/chat_stream/0123?offset=5", headers="Last-Event-ID: 3\r\n"),
    request("GET", "/api/conversation", headers="Range: bytes=0-1\r\nIf-None-Match: *\r\n"),
    request("GET", "/health/ready")
    + request("GET", "/metrics", headers="Accept: application/openmetrics-text\r\n"),
    request("OPTIONS", "/api/chat_stream", headers="Access-Control-Request-Method: POST\r\n"),
]
TOKENS = [
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\x00",
        b"\xff",
        b"\xc3",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"%",
        b"%00",
    ),
    *(
        b"-1",
        b"0",
        b"1e999",
        b"9" * 30,
        b"0x10",
        b"NaN",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'"',
        b"\\ud800",
        b"[",
    ),
    *(
        b"/../",
        b"//",
        b"http://[",
        b"?",
        b"#",
        b"HTTP/0.9",
        b"HTTP/2.0",
        b"chunked",
        b"Content-Length: 5\r\n",
    ),
    *(b"Transfer-Encoding: gzip\r\n", b"Host: b\r\n", b"Upgrade: websocket\r\n", b"Connection: close\r\n"),
]


def mutated(seed: int) -> bytes:
    rng = random.Random(seed)
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(data) + 1)
        end = min(at + rng.choice([1, 2, 8, 40]), len(data))
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.choice(TOKENS)
            case 1:
                data[at:end] = rng.choice(TOKENS)
            case 2:
                del data[at:end]
            case 3:
                data[at:end] = rng.randbytes(end - at)
            case 4:
                data[at:at] = data[at:end] * rng.choice([1, 2, 300])
            case _:
                other = rng.choice(SEEDS)
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def statuses_of(port: int, data: bytes) -> list[int]:
    """Return the statuses of all answers that come before the server waits or closes the connection."""
    raw = b""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SEC) as sock, suppress(OSError):
        sock.settimeout(QUIET_SEC)
        sock.sendall(data)
        while more := sock.recv(65536):
            raw += more
    return [int(status) for status in re.findall(rb"(?m)^HTTP/1\.[01] (\d{3}) ", raw)]


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mock = {"type": "echo", "time_per_token_sec": 0.0}
    options = {"num_of_concurrent_executions": 2 * NUM_AT_ONCE, "max_queue_size": 200}
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-raw"), mock, **options) as server:
        for data in SEEDS:
            assert statuses_of(server.port, data)
        yield server


def test_no_bytes_make_a_server_error(server: Server, record_property: Callable[[str, object], None]) -> None:
    with nothing_is_left(server), ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        found = list(pool.map(lambda seed: statuses_of(server.port, mutated(seed)), range(NUM_INPUTS)))
    bad = [
        seed for seed, statuses in enumerate(found) if any(s >= 500 and s not in RIGHT_5XX for s in statuses)
    ]
    assert bad == []
    check_well(server)
    assert "Traceback" not in server.output and "A connection failed" not in server.output
    counts = Counter(status for statuses in found for status in statuses)
    assert counts[200] > NUM_INPUTS / 20 and counts[400] > NUM_INPUTS / 20
    record_property("figure", f"{NUM_INPUTS:,} inputs, answers by status: {dict(sorted(counts.items()))}")
