"""Responses that a server sends without the app."""

from __future__ import annotations

from http import HTTPStatus

from ..http.problem import CONTENT_TYPE, RETRY_AFTER_SEC, problem_document


def request_timeout(*, has_head: bool) -> bytes:
    """Return the response to a request whose head or body did not arrive in time."""
    part = "body" if has_head else "head of the request"
    return refusal(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", f"the {part} did not arrive in time")


def refusal(status: HTTPStatus, code: str, detail: str) -> bytes:
    """Return a whole HTTP response with a problem document (RFC 9457); it closes the connection."""
    body = problem_document(status, code, detail)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {RETRY_AFTER_SEC}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
