"""Each example app, started with its command and used over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from chatstream_flask.client import free_port

from .client import TIMEOUT_SEC
from .server import Server

pytestmark = pytest.mark.server

COMMANDS = {  # as typed after `flask --app chatstream_flask.examples.NAME`
    "simple": ["chatstream", "serve"],
    "accounts": ["run"],
    "front_server": ["run"],
}
ENVIRON = {"FRONT_SECRET": "s3cret", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Start all apps at once; return their ports."""
    with ExitStack() as stack:
        servers = {}
        for name, command in COMMANDS.items():
            port = free_port()
            flask = [sys.executable, "-m", "flask", "--app", f"chatstream_flask.examples.{name}"]
            folder = tmp_path_factory.mktemp(name)
            server = Server([*flask, *command, "--port", str(port)], port, folder, ENVIRON)
            servers[name] = stack.enter_context(server)
        yield {name: server.port for name, server in servers.items()}
        for name, server in servers.items():
            assert "Traceback" not in server.output, name


class Client:
    """One visitor with a cookie jar of its own; it retries while its server starts."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        retries = Retry(900, backoff_factor=0.1, backoff_max=0.1)
        self.session.mount("http://", HTTPAdapter(max_retries=retries))

    def ask(
        self, method: str, path: str, json: dict[str, Any] | None = None, status: int = 200
    ) -> requests.Response:
        response = self.session.request(method, self._url + path, json=json, timeout=TIMEOUT_SEC)
        assert response.status_code == status, response.text
        return response

    def say(self, path: str, user_input: str) -> str:
        """Return the reply, decoded greedily, where the demo model is at its best."""
        return self.ask("POST", path, {"user_input": user_input, "temperature": 0.0}).text


def test_simple(ports: dict[str, int]) -> None:
    client = Client(ports["simple"])
    assert client.say("/chat_stream", "My name is Lucy.")
    assert "Lucy" in client.say("/chat_stream", "What is my name?")


def test_accounts(ports: dict[str, int]) -> None:
    client, device = Client(ports["accounts"]), Client(ports["accounts"])
    assert client.say("/chat_stream", "My name is Lucy.")
    account = {"name": "lucy", "password": "correct horse"}
    client.ask("POST", "/signup", account)
    device.ask("POST", "/login", account)
    (found,) = device.ask("GET", "/conversations").json()
    assert "Lucy" in device.say(f"/conversations/{found['id']}/chat_stream", "What is my name?")
    assert client.ask("GET", f"/conversations/{found['id']}/export.md").text.count("**User**") == 2
    Client(ports["accounts"]).ask("GET", f"/conversations/{found['id']}/export.md", status=404)


def test_front_server(ports: dict[str, int]) -> None:
    client = Client(ports["front_server"])
    client.session.headers.update({"X-Front-Secret": "s3cret", "X-Conversation-Key": "user-7"})
    assert client.say("/chat_stream", "My name is Lucy.")
    assert "Lucy" in client.say("/chat_stream", "What is my name?")
    assert len(client.ask("GET", "/conversation").json()) == 4
    client.session.headers["X-Front-Secret"] = "guessed"
    client.ask("GET", "/conversation", status=403)
    assert not client.session.cookies
