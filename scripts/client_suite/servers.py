"""Servers that clients are run against: `serve` under waitress, its app under gunicorn, nginx in front."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from chatstream_flask.client import ServerProcess, free_port

KINDS = ("waitress", "gunicorn", "nginx")
KEY = "a-key-of-the-clients"
MAX_NEW_TOKENS = 512  # a small model may go on for ever
DEMO = Path(__file__).parents[2] / "chatstream_flask" / "demo_model"
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{backend}; proxy_set_header Host $host:$server_port; }}
    }}
}}
"""  # its defaults: buffering, HTTP/1.0


class Running(NamedTuple):
    """A server that answers."""

    base_url: str
    model: str  # its name
    folder: str  # that of the model


@contextmanager
def running(kind: str, model: str, build: Path) -> Iterator[Running]:
    """Run a server of a kind; its log is in `build`.

    :param model: "demo", or the folder of a model
    """
    folder = DEMO if model == "demo" else Path(model).resolve()
    port = free_port()
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="run-", dir=build)))
        command = _gunicorn(folder, port) if kind == "gunicorn" else _serve(folder, port)
        environ = {"CHATSTREAM_API_KEYS": KEY, "CLIENT_MODEL_FOLDER": str(folder)}
        server = stack.enter_context(ServerProcess(command, port, work / "log", cwd=work, environ=environ))
        server.wait_until_ready("/health", 300)
        if kind == "nginx":
            front = free_port()
            (work / "nginx.conf").write_text(NGINX.format(folder=work, port=front, backend=port))
            program = shutil.which("nginx") or "/usr/sbin/nginx"
            command = [program, "-p", str(work), "-c", str(work / "nginx.conf")]
            stack.enter_context(ServerProcess(command, front, work / "nginx.log")).wait_until_ready("/health")
            port = front
        yield Running(f"http://127.0.0.1:{port}/v1", folder.name, str(folder))


def _serve(folder: Path, port: int) -> list[str]:
    options = ["--model", str(folder), "--port", str(port), "--max-new-tokens", str(MAX_NEW_TOKENS)]
    return [sys.executable, "-m", "chatstream_flask", "serve", *options]


def _gunicorn(folder: Path, port: int) -> list[str]:
    conf = "python:chatstream_flask.serving.gunicorn_conf"
    app = "client_suite.gunicorn_app:create_app()"
    return [sys.executable, "-m", "gunicorn", "-c", conf, "--bind", f"127.0.0.1:{port}", app]
