"""A real nginx with docs/deploy/nginx.conf; only addresses and certificate are replaced."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from chatstream_flask.client import free_port

from .client import TIMEOUT_SEC
from .server import REPOSITORY, Server

NO_NGINX = "nginx is not installed; scripts/test installs it where it can"

SECOND = "    server 127.0.0.1:3002 max_fails=0;\n"
STICKY = "hash $chat_visitor consistent;"
AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/chatstream.conf;
}}
"""


@contextmanager
def nginx(folder: Path, backends: Sequence[int], *, is_sticky: bool = True) -> Iterator[Server]:
    """Run nginx in front of two ports or more, with https and the certificate `folder`/chat.pem.

    :param is_sticky: a visitor stays with one of them
    """
    port = free_port()
    with Server(nginx_command(folder, port, backends, is_sticky=is_sticky), port, folder) as server:
        yield server


def nginx_command(folder: Path, port: int, backends: Sequence[int], *, is_sticky: bool = True) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip(NO_NGINX)
    folder.mkdir(parents=True, exist_ok=True)
    make_certificate(folder)
    site = (REPOSITORY / "docs/deploy/nginx.conf").read_text(encoding="utf-8")
    for theirs, ours in {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/chat.example.com.pem": f"{folder}/chat.pem",
        "/etc/ssl/private/chat.example.com.key": f"{folder}/chat.key",
        "127.0.0.1:3001 max": f"127.0.0.1:{backends[0]} max",
        SECOND: "".join(SECOND.replace("3002", str(port)) for port in backends[1:]),
    }.items():
        assert site.count(theirs) == 1
        site = site.replace(theirs, ours)
    if not is_sticky:  # as docs/beyond-one-machine.md says
        assert site.count(STICKY) == 1
        site = site.replace(STICKY, "least_conn;")
    (folder / "chatstream.conf").write_text(site)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]


def make_certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chat"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "chat.key"), "-out", str(folder / "chat.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=TIMEOUT_SEC)
