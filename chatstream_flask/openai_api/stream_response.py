"""Streamed answers as Flask's responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Response, g, request

from ..chat.wire_format import COMMON_HEADERS, ServerSentEvents
from ..http.disconnect import Probe, make_probe
from ..settings import Settings
from .answer_stream import EventStream


def probe() -> Probe:
    """Return a function that tells whether the client of the current request has gone."""
    return make_probe(request.environ) or (lambda: False)


def stream_options(settings: Settings) -> dict[str, Any]:
    """Return the parameters of every EventStream for the current request."""
    return {
        "is_gone": probe(),
        "probe_sec": settings.probe_sec,
        "heartbeat_sec": settings.heartbeat_sec,
    }


def event_response(events: Iterable[bytes] | bytes) -> Response:
    """Return a response of server-sent events."""
    return Response(events, content_type=ServerSentEvents.content_type, headers=COMMON_HEADERS)


def stream_response(stream: EventStream) -> Response:
    """Return a response that ends the choices when the server is done with it."""
    response = event_response(stream)
    response.call_on_close(stream.close)
    g.chatstream_reply = stream
    return response
