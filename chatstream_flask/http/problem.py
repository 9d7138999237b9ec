"""Errors as HTTP answers: the one place where a ChatStreamError becomes a response."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Response

from ..errors import ChatStreamError, TooManyRequests

RETRY_AFTER_SEC = 5  # where nothing is measured: the server stops, or has lost its store


def problem_response(error: ChatStreamError, *, too_many_as_200: bool = False) -> Response:
    """application/problem+json (RFC 9457); ChatStream's way of saying that it is full, where asked for,
    byte for byte: front ends that take it for the reply's text compare it.
    """
    if isinstance(error, TooManyRequests) and too_many_as_200:
        return Response(f'{{"error":"{error.code}"}}', content_type="application/json")
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": str(error),
        "error": error.code,
    }
    if isinstance(error, TooManyRequests):
        body["reason"] = error.reason
    response = Response(json.dumps(body), error.status, content_type="application/problem+json")
    say_when_to_retry(response, error)
    return response


def say_when_to_retry(response: Response, error: ChatStreamError) -> None:
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    elif error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SEC)
