"""A client with little overhead: one thread reads all streams, and parsing waits until all have ended."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
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


def ask_all(port: int, streams: Sequence[Sequence[bytes]]) -> list[list[HttpReply]]:
    """Send the first request of each stream at once, and each further one when its stream's reply has ended.

    Each has its own connection. Return the replies of each stream when all have ended.

    :raises RuntimeError: nothing arrived for 20 minutes
    :raises OSError: the server does not accept connections, or broke one off
    """
    replies: list[list[HttpReply]] = [[] for _ in streams]
    with selectors.DefaultSelector() as selector:
        try:
            for requests, of_stream in zip(streams, replies, strict=True):
                _ask_next(selector, port, iter(requests), of_stream)
            while selector.get_map():
                ready = selector.select(REPLY_SEC)
                if not ready:
                    raise RuntimeError(f"nothing arrived for {REPLY_SEC} s")
                for key, _ in ready:
                    _read(selector, port, key)
        finally:
            for key in list(selector.get_map().values()):
                _close(selector, key)
    return replies


def _ask_next(
    selector: selectors.BaseSelector, port: int, requests: Iterator[bytes], replies: list[HttpReply]
) -> None:
    """Send the next request of a stream, if there is one."""
    if request := next(requests, None):
        replies.append(HttpReply(time.perf_counter()))
        connection = socket.create_connection(("127.0.0.1", port), timeout=REPLY_SEC)
        connection.sendall(request)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, (requests, replies))


def _read(selector: selectors.BaseSelector, port: int, key: selectors.SelectorKey) -> None:
    """Read what has arrived; at the end of a reply send the next request of its stream."""
    connection = key.fileobj
    assert isinstance(connection, socket.socket)
    requests, replies = key.data
    if data := connection.recv(65536):
        replies[-1].add(data)
    else:
        _close(selector, key)
        _ask_next(selector, port, requests, replies)


def _close(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    selector.unregister(key.fileobj)
    assert isinstance(key.fileobj, socket.socket)
    key.fileobj.close()
