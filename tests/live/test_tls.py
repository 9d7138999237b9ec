"""gunicorn with a certificate of its own: clients that are slow or silent within TLS take no thread, too."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from chatstream_flask.client import free_port

from .client import TIMEOUT_SEC, wait_until
from .nginx import make_certificate
from .server import Server, gunicorn_command

pytestmark = pytest.mark.server

NUM_CLIENTS = 40  # more than the server has threads

MOCK = {"use_mock_response": True, "mock_params": {"type": "echo", "time_per_token_sec": 0.0}}
CONFIG = {"CHATSTREAM_MAX_INPUT_LEN": 10_000_000, "CHATSTREAM_MAX_BODY_LEN": 10_000_000}
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class TlsServer(Server):
    """A gunicorn that speaks only https."""

    def request(self, data: bytes) -> bytes:
        """Send over a new connection; return what comes until the server ends it."""
        context = ssl.create_default_context(cafile=str(self.folder / "chat.pem"))
        raw = b""
        with (
            socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SEC) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
            suppress(ssl.SSLEOFError),  # gunicorn ends TLS with the connection
        ):
            sock.sendall(data)
            while more := sock.recv(65536):
                raw += more
        return raw

    def is_well(self) -> bool:
        assert self.process.poll() is None, self.output
        with suppress(ConnectionRefusedError):
            return b'{"status":"alive"}' in self.request(HEALTH)
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder)
    port = free_port()
    options: dict[str, Any] = MOCK | {"context_len": 10_000_000}
    wanted = {"folder": str(folder), "config": CONFIG, "options": options}
    command = [*gunicorn_command(port, False), "--certfile", str(folder / "chat.pem")]
    command += ["--keyfile", str(folder / "chat.key")]
    server = TlsServer(command, port, folder, {"LIVE_APP": json.dumps(wanted)})
    with server:
        wait_until(server.is_well)
        yield server


def post(user_input: str) -> bytes:
    body = json.dumps({"user_input": user_input}).encode()
    head = b"POST /chat_stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_chat(server: TlsServer) -> None:
    assert b"hello" in server.request(post("hello"))
    words = " ".join(["x" * 100_000] * 20)  # many TLS records, more than the buffers take
    answer = server.request(post(words))
    assert len(answer) > len(words)
    assert answer.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_handshakes_that_do_not_end(server: TlsServer, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(NUM_CLIENTS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC))
            sock.sendall(sent)
        assert server.is_well()
        assert b"hello" in server.request(post("hello"))


def test_silence_after_the_handshake(server: TlsServer) -> None:
    context = ssl.create_default_context(cafile=str(server.folder / "chat.pem"))
    with ExitStack() as stack:
        for _ in range(NUM_CLIENTS):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC))
            sock = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            sock.sendall(post("hello")[:-3])
        assert server.is_well()
        assert b"hello" in server.request(post("hello"))
