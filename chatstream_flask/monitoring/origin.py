"""Where a request came from: what log lines and traces say of it besides its numbers."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from flask import Request, Response, request

from .tracing import parent_of

REQUEST_ID = "chatstream.request_id"  # in a request's environ
SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


@dataclass(frozen=True, kw_only=True)
class Origin:
    request_id: str
    method: str
    route: str  # the rule, not the path, so that lines of one view are alike
    parent: Any  # of its span, where traces are made

    @classmethod
    def from_request(cls, request: Request) -> Origin:
        rule = request.url_rule
        return cls(
            request_id=request_id_of(request),
            method=request.method,
            route="-" if rule is None else rule.rule,
            parent=parent_of(request.headers),
        )


def request_id_of(request: Request) -> str:
    """The client's or the proxy's own if it is sane, else a new one; one for each request."""
    known: str | None = request.environ.get(REQUEST_ID)
    if known is None:
        given = request.headers.get("X-Request-Id", "")
        known = request.environ[REQUEST_ID] = given if SANE.fullmatch(given) else uuid.uuid4().hex
    return known


def take_request_id() -> None:
    """Before each request of our blueprints."""
    request_id_of(request)


def give_request_id(response: Response) -> Response:
    """After each request of the app: those that are ours have one."""
    if request_id := request.environ.get(REQUEST_ID):
        response.headers.setdefault("X-Request-Id", request_id)
    return response
