"""The headers that an app's ProxyFix needs reach it under waitress."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests

from chatstream_flask.client import free_port

from .client import TIMEOUT_SEC
from .server import Server

pytestmark = pytest.mark.server

APP = """
from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix
from chatstream_flask import ChatStream

app = Flask(__name__, instance_path={folder!r})
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)
ChatStream(use_mock_response=True, app=app)
app.get("/")(lambda: request.url + " " + request.remote_addr)
"""


def test_an_app_behind_a_proxy_knows_its_address(tmp_path: Path) -> None:
    (tmp_path / "proxied.py").write_text(APP.format(folder=str(tmp_path / "instance")))
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "proxied", "chatstream", "serve", "--port", str(port)]
    with Server(command, port, tmp_path) as server:
        server.wait_until_ready("/")
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "chat.example",
            "X-Forwarded-For": "9.9.9.9",
        }
        answer = requests.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=TIMEOUT_SEC)
        assert answer.text == "https://chat.example/ 9.9.9.9"
        assert server.terminate() == 0
