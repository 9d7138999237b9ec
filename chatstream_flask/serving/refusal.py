"""Responses that a server sends without the app."""

from __future__ import annotations

import json
from http import HTTPStatus

RETRY_AFTER_SEC = 5

MAX_HEAD_SEC = 20.0  # time for the head of a request, and for the first byte of a new connection


def request_timeout(*, has_head: bool) -> bytes:
    """Return the response to a request whose head or body did not arrive in time."""
    part = "body" if has_head else "head of the request"
    return refusal(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", f"the {part} did not arrive in time")


def refusal(status: HTTPStatus, code: str, detail: str) -> bytes:
    """Return a whole HTTP response with a problem document (RFC 9457); it closes the connection."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "error": code,
        }
    )
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {RETRY_AFTER_SEC}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
