"""Identity of an HTTP request, as log lines, traces and the `X-Request-Id` header show it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request, Response, request

from .tracing import parent_context, trace_headers

REQUEST_ID = "chatstream.request_id"  # key of the WSGI environ
SANE_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The HTTP request that a reply belongs to."""

    request_id: str
    method: str
    route: str  # the URL rule, not the path, so that all requests of one view have the same value
    parent: Any  # OpenTelemetry context of the parent span, if there is one
    onward_headers: Mapping[str, str]  # for requests to other servers that belong to it

    @classmethod
    def from_request(cls, request: Request) -> Origin:
        rule, request_id, parent = request.url_rule, get_request_id(request), parent_context(request.headers)
        return cls(
            request_id=request_id,
            method=request.method,
            route="-" if rule is None else rule.rule,
            parent=parent,
            onward_headers={"X-Request-Id": request_id, **trace_headers(parent, request.headers)},
        )


def get_request_id(request: Request) -> str:
    """Return the request's id: the `X-Request-Id` it came with if that is well-formed, else a new one."""
    known: str | None = request.environ.get(REQUEST_ID)
    if known is None:
        given = request.headers.get("X-Request-Id", "")
        known = request.environ[REQUEST_ID] = given if SANE_ID.fullmatch(given) else uuid.uuid4().hex
    return known


def assign_request_id() -> None:
    """Give the current request an id; a `before_request` function of our blueprints."""
    get_request_id(request)


def add_request_id_header(response: Response) -> Response:
    """Set `X-Request-Id` on responses of our blueprints; an `after_request` function of the app."""
    if request_id := request.environ.get(REQUEST_ID):
        response.headers.setdefault("X-Request-Id", request_id)
    return response
