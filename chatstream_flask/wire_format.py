"""How a reply looks on the wire: one small class for each format, all pure functions of what happened."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from .engine.request import FinishReason, Outcome
from .errors import GenerationError


class WireFormat(ABC):
    """Each method gives the bytes to send, b"" for nothing."""

    content_type: str
    headers: dict[str, str]

    @abstractmethod
    def queue(self, position: int, eta_sec: float | None) -> bytes: ...

    @abstractmethod
    def start(self) -> bytes: ...

    @abstractmethod
    def text(self, text: str, offset: int) -> bytes:
        """New text; `offset` counts the characters up to its end."""

    @abstractmethod
    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes: ...

    @abstractmethod
    def heartbeat(self) -> bytes: ...


COMMON_HEADERS = {
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx passes every chunk on at once
    "X-Content-Type-Options": "nosniff",
}


class PlainText(WireFormat):
    """Each chunk is new text and nothing else, so it cannot carry anything before the first word."""

    content_type = "text/plain; charset=utf-8"
    headers = COMMON_HEADERS | {"Content-Encoding": "identity"}  # keeps Flask-Compress from collecting it

    def queue(self, position: int, eta_sec: float | None) -> bytes:
        return b""

    def start(self) -> bytes:
        return b""

    def text(self, text: str, offset: int) -> bytes:
        return text.encode()

    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes:
        """An error cuts the body short, which HTTP clients notice; text could not tell it from a reply."""
        if outcome.finish_reason is FinishReason.ERROR:
            raise GenerationError(outcome.error)
        return b""

    def heartbeat(self) -> bytes:
        return b""


class ServerSentEvents(WireFormat):
    """https://html.spec.whatwg.org/multipage/server-sent-events.html

    The id of an event is the number of characters of the reply that its reader has then got.
    """

    content_type = "text/event-stream; charset=utf-8"
    headers = COMMON_HEADERS

    def queue(self, position: int, eta_sec: float | None) -> bytes:
        eta = None if eta_sec is None else round(eta_sec, 1)
        return self._event("queue", {"position": position, "eta_s": eta}, 0)

    def start(self) -> bytes:
        return self._event("start", {}, 0)

    def text(self, text: str, offset: int) -> bytes:
        return self._event("text", {"text": text}, offset)

    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes:
        if outcome.finish_reason is FinishReason.ERROR:
            return self._event("error", {"code": GenerationError.code, "message": outcome.error}, offset)
        return self._event("done", describe(outcome) | extra, offset)

    def heartbeat(self) -> bytes:
        return b": heartbeat\n\n"

    def _event(self, name: str, data: dict[str, Any], offset: int) -> bytes:
        return f"id: {offset}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def describe(outcome: Outcome) -> dict[str, Any]:
    """What a client is told at the end of a reply."""
    return {
        "finish_reason": outcome.finish_reason.value,
        "usage": {
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        },
        "timings": {
            "queue_ms": _ms(outcome.queue_sec),
            "time_to_first_token_ms": _ms(outcome.first_token_sec),
            "total_ms": _ms(outcome.total_sec),
            "tokens_per_second": _rounded(outcome.tokens_per_sec),
        },
    }


def choose(accept: str) -> WireFormat:
    """By the request's Accept header: events if they are asked for by name, else plain text."""
    return ServerSentEvents() if "text/event-stream" in accept.lower() else PlainText()


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
