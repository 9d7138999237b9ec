"""Errors of the API in OpenAI's format."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException

from ..errors import BadRequest, ChatStreamError, PromptTooLong, TooManyRequests
from ..http.problem import set_retry_after


class ApiError(BadRequest):
    """A refusal that names the field of the request."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
        num_tokens: int = 0,
        **numbers: int,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
        self.num_tokens = num_tokens
        self.numbers = numbers  # further fields of the error object


def error_object(error: ChatStreamError) -> dict[str, Any]:
    """Return the value of "error" in a response or a stream."""
    return {
        "message": str(error),
        "type": _type_of(error),
        "param": getattr(error, "param", None),
        "code": _code_of(error),
        **getattr(error, "numbers", {}),
    }


def error_response(error: ChatStreamError) -> Response:
    body = json.dumps({"error": error_object(error)}, ensure_ascii=False)
    response = Response(body, error.status, content_type="application/json")
    set_retry_after(response, error)
    if error.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def http_error_response(error: HTTPException) -> Response:
    """Return an error of Flask or the host app, with the headers that it sets."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if error.response is not None and error.code is None:  # abort(response)
        return error.response  # type: ignore[return-value]
    name = HTTPStatus(status).name.lower()
    response = error_response(ApiError(error.description or error.name, code=name, status=status))
    for key, value in error.get_headers():
        if key.lower() not in ("content-type", "content-length"):
            response.headers[key] = value
    return response


def _code_of(error: ChatStreamError) -> str:
    match error:
        case TooManyRequests():
            return error.reason
        case PromptTooLong():
            return "context_length_exceeded"
    return error.code


def _type_of(error: ChatStreamError) -> str:
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        return "overloaded_error"
    return "server_error" if error.status >= 500 else "invalid_request_error"
