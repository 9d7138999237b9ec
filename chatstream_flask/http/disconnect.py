"""Detection of clients that have gone, on waitress, gunicorn and Flask's own server."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Probe = Callable[[], bool]

_GONE = getattr(select, "POLLRDHUP", 0x2000) | 0x10 | 0x08 | 0x20  # peer closed, hung up, error, invalid


def make_probe(environ: dict[str, Any]) -> Probe | None:
    """Return a cheap function that tells whether the client has gone; None where only writing can tell.

    waitress offers `waitress.client_disconnected`, which works with channel_request_lookahead >= 1. With
    other servers the socket is polled (POLLRDHUP, which Linux has).
    """
    ask = environ.get("waitress.client_disconnected")
    if ask is not None:
        adjustments = getattr(getattr(ask, "__self__", None), "adj", None)
        return None if adjustments is not None and adjustments.channel_request_lookahead < 1 else ask
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if connection is None or not hasattr(select, "poll"):
        return None

    def is_gone() -> bool:
        try:
            poll = select.poll()
            poll.register(connection.fileno(), _GONE)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed on our side: fileno() is -1
            return True

    return is_gone


def reset_on_close(environ: dict[str, Any]) -> None:
    """Make the server reset the connection when it closes it, if that is all that can show a cut body.

    HTTP/1.0 has no chunks, so a body that was cut short would end like any other. Front servers such as
    nginx speak HTTP/1.0 unless told otherwise.
    """
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
        return
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    connection = (
        environ.get("gunicorn.socket") or environ.get("werkzeug.socket") or getattr(channel, "socket", None)
    )
    if connection is not None:
        with suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def limit_silence(environ: dict[str, Any], max_sec: float) -> None:
    """Set a timeout for reading from and writing to the client's socket under gunicorn.

    Without it, a client that sends no body or reads no reply would hold a thread for ever. Both then raise
    TimeoutError. Under waitress the server itself reads and writes.
    """
    if (connection := environ.get("gunicorn.socket")) is not None:
        connection.settimeout(max_sec)
