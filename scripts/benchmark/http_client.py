"""A client with little overhead: one thread reads all streams, and parsing waits until all have ended."""

from __future__ import annotations

import json
import selectors
import socket
import time
from typing import Any

from .http_reply import HttpReply

REPLY_SEC = 1200


def request_bytes(path: str, body: dict[str, Any], accept: str = "*/*") -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def ask_all(port: int, requests: list[bytes]) -> list[HttpReply]:
    """Send all requests at once, each over its own connection; return when all replies have ended."""
    deadline = time.monotonic() + REPLY_SEC
    replies = []
    with selectors.DefaultSelector() as selector:
        for request in requests:
            reply = HttpReply(time.perf_counter())
            connection = socket.create_connection(("127.0.0.1", port), timeout=REPLY_SEC)
            connection.sendall(request)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, reply)
            replies.append(reply)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready:
                close_all(selector)
                raise RuntimeError(f"the replies were not complete after {REPLY_SEC} s")
            for key, _ in ready:
                read(selector, key)
    return replies


def read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    connection = key.fileobj
    assert isinstance(connection, socket.socket)
    if data := connection.recv(65536):
        key.data.add(data)
    else:
        selector.unregister(connection)
        connection.close()


def close_all(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
