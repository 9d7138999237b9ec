"""The HTTP response that streams a reply."""

from __future__ import annotations

from flask import Request, g

from ..http.disconnect import limit_silence, make_probe
from ..http.streamed_response import StreamedResponse
from ..settings import Settings
from .readers import Readers
from .reply_registry import Reply
from .reply_stream import ReplyStream
from .wire_format import ChatStreamFrames, WireFormat


def reply_response(
    reply: Reply,
    wire: WireFormat,
    settings: Settings,
    request: Request,
    grace_sec: float,
    offset: int,
    readers: Readers,
    visitor: str | None,
) -> StreamedResponse:
    """Return the streaming response for one reader of a reply.

    :param grace_sec: how long the reply goes on without any reader
    :param offset: characters of the reply that the reader already has
    :raises TooManyRequests: there are too many readers already; never for the first one of a reply
    """
    limit_silence(request.environ, settings.client_timeout_sec)
    stream = readers.open(
        reply.source,
        visitor,
        lambda: ReplyStream(
            reply.source,
            wire,
            is_gone=make_probe(request.environ),
            probe_sec=settings.probe_sec,
            heartbeat_sec=settings.heartbeat_sec,
            extra={"num_dropped_turns": reply.num_dropped_turns},
            grace_sec=grace_sec,
            sources=reply.sources,
            offset=0 if isinstance(wire, ChatStreamFrames) else offset,  # each frame holds the whole reply
        ),
    )
    response = StreamedResponse(stream, content_type=wire.content_type, headers=wire.headers)
    response.headers["X-ChatStream-Last-Generated-Message-Id"] = reply.message_id
    if reply.num_dropped_turns:
        response.headers["X-ChatStream-Truncated"] = f"turns={reply.num_dropped_turns}"
    response.call_on_close(stream.close)
    g.chatstream_reply = stream
    return response


def close_lost_reply(error: BaseException | None) -> None:
    """Close the stream of a request that failed after its view, for example while saving the session.

    A `teardown_request` function: the server never gets such a response, so nobody else would close it.
    """
    stream: ReplyStream | None = g.pop("chatstream_reply", None)
    if error is not None and stream is not None:
        stream.close()
