"""Error responses: the one place where a ChatStreamError becomes a response."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Response

from ..errors import ChatStreamError, TooManyRequests

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SEC = 5  # where no time is known: the server stops, or its store is not available


def problem_response(error: ChatStreamError, *, too_many_as_200: bool = False) -> Response:
    """Return an error as application/problem+json (RFC 9457).

    :param too_many_as_200: answer TooManyRequests with status 200 and exactly the bytes of the original
        ChatStream, which its front ends look for in the text of the reply
    """
    if isinstance(error, TooManyRequests) and too_many_as_200:
        return Response(f'{{"error":"{error.code}"}}', content_type="application/json")
    members = {"reason": error.reason} if isinstance(error, TooManyRequests) else {}
    body = problem_document(error.status, error.code, str(error), **members)
    response = Response(body, error.status, content_type=CONTENT_TYPE)
    set_retry_after(response, error)
    return response


def problem_document(status: int, code: str, detail: str, **members: str) -> str:
    """Return a problem document (RFC 9457) as JSON."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": code,
    }
    return json.dumps(document | members)


def set_retry_after(response: Response, error: ChatStreamError) -> None:
    """Set `Retry-After` where a later request may succeed."""
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    elif error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SEC)
