"""Wire formats: each class turns the events of a reply into bytes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..config import WireFormatName
from ..engine.outcome import FinishReason, Outcome


class WireFormat(ABC):
    """Encoder of a reply's events; each method returns the bytes to send, b"" for none."""

    content_type: str
    headers: dict[str, str]
    is_resumable = False  # a reader can say how many characters it has, and reconnect

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id

    @abstractmethod
    def queue(self, position: int, eta_sec: float | None) -> bytes: ...

    @abstractmethod
    def start(self) -> bytes: ...

    def sources(self, sources: Sequence[dict[str, str]]) -> bytes:
        """Encode what is shown with the reply, each with `title` and perhaps `url`."""
        return b""

    def step(self, step: dict[str, Any], offset: int) -> bytes:
        """Encode a step of a function call; `offset` counts it as one character."""
        return b""

    @abstractmethod
    def text(self, text: str, offset: int) -> bytes:
        """Encode new text of the answer; `offset` is the number of characters up to its end."""

    @abstractmethod
    def reasoning(self, text: str, offset: int) -> bytes:
        """Encode new text of the reasoning; `offset` counts it and the answer together, as in `text`."""

    @abstractmethod
    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes: ...

    @abstractmethod
    def heartbeat(self) -> bytes: ...


COMMON_HEADERS = {
    "Cache-Control": "no-cache, no-store, no-transform",
    "Content-Encoding": "identity",  # Flask-Compress would buffer the stream
    "X-Accel-Buffering": "no",  # nginx does not buffer
    "X-Content-Type-Options": "nosniff",
}


class PlainText(WireFormat):
    """Only the text of the answer, so nothing can be sent before its first word."""

    content_type = "text/plain; charset=utf-8"
    headers = COMMON_HEADERS

    def queue(self, position: int, eta_sec: float | None) -> bytes:
        return b""

    def start(self) -> bytes:
        return b""

    def text(self, text: str, offset: int) -> bytes:
        return text.encode()

    def reasoning(self, text: str, offset: int) -> bytes:
        return b""

    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes:
        """Return nothing, or raise if the reply is incomplete: text has no other way to say so.

        :raises ChatStreamError: why it is incomplete
        """
        if failure := outcome.failure:
            raise failure
        return b""

    def heartbeat(self) -> bytes:
        return b""


class ServerSentEvents(WireFormat):
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    The id of an event is the number of characters of the reply, reasoning included, that its reader has
    received with it.
    """

    content_type = "text/event-stream; charset=utf-8"
    headers = COMMON_HEADERS
    is_resumable = True

    def queue(self, position: int, eta_sec: float | None) -> bytes:
        place = {"message_id": self.message_id, "position": position, "eta_s": rounded(eta_sec)}
        return self._event("queue", place, 0)

    def start(self) -> bytes:
        return self._event("start", {"message_id": self.message_id}, 0)

    def step(self, step: dict[str, Any], offset: int) -> bytes:
        return self._event("step", step, offset)

    def sources(self, sources: Sequence[dict[str, str]]) -> bytes:
        return self._event("sources", {"sources": list(sources)}, 0)

    def text(self, text: str, offset: int) -> bytes:
        return self._event("text", {"text": text}, offset)

    def reasoning(self, text: str, offset: int) -> bytes:
        return self._event("reasoning", {"text": text}, offset)

    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes:
        if outcome.finish_reason is FinishReason.ERROR:
            return self._event("error", {"code": outcome.error_class.code, "message": outcome.error}, offset)
        return self._event("done", describe(outcome) | {"message_id": self.message_id} | extra, offset)

    def heartbeat(self) -> bytes:
        return b": heartbeat\n\n"

    def _event(self, name: str, data: dict[str, Any], offset: int) -> bytes:
        return server_sent_event(data, name=name, event_id=offset)


class NewlineDelimitedJSON(WireFormat):
    """One JSON object per line: the same events, with their name in the field "event"."""

    content_type = "application/x-ndjson"
    headers = COMMON_HEADERS

    def queue(self, position: int, eta_sec: float | None) -> bytes:
        return self._line("queue", message_id=self.message_id, position=position, eta_s=rounded(eta_sec))

    def start(self) -> bytes:
        return self._line("start", message_id=self.message_id)

    def step(self, step: dict[str, Any], offset: int) -> bytes:
        return self._line("step", **step)

    def sources(self, sources: Sequence[dict[str, str]]) -> bytes:
        return self._line("sources", sources=list(sources))

    def text(self, text: str, offset: int) -> bytes:
        return self._line("text", text=text)

    def reasoning(self, text: str, offset: int) -> bytes:
        return self._line("reasoning", text=text)

    def end(self, outcome: Outcome, extra: dict[str, Any], offset: int) -> bytes:
        if outcome.finish_reason is FinishReason.ERROR:
            return self._line("error", code=outcome.error_class.code, message=outcome.error)
        return self._line("done", **describe(outcome), message_id=self.message_id, **extra)

    def heartbeat(self) -> bytes:
        return b"\n"

    def _line(self, event: str, **fields: Any) -> bytes:
        return json.dumps({"event": event, **fields}, ensure_ascii=False).encode() + b"\n"


class ChatStreamFrames(PlainText):
    """ChatStream's frames: the whole reply so far and `<::EOS::>`, so the total size is quadratic."""

    END_OF_FRAME = "<::EOS::>"

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id)
        self._reply = ""

    def text(self, text: str, offset: int) -> bytes:
        self._reply += text
        return (self._reply.strip() + self.END_OF_FRAME).encode()


def server_sent_event(data: Any, *, name: str | None = None, event_id: int | None = None) -> bytes:
    """Return one event, with `data` as JSON on one line.

    :param name: its type; None: clients take it for a "message"
    """
    head = "" if event_id is None else f"id: {event_id}\n"
    head += "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def describe(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of the last event of a reply."""
    usage = {
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
    }
    timings = {
        "queue_ms": _ms(outcome.queue_sec),
        "time_to_first_token_ms": _ms(outcome.first_token_sec),
        "total_ms": _ms(outcome.total_sec),
        "tokens_per_second": rounded(outcome.tokens_per_sec),
    }
    if outcome.reasoning_sec is not None:
        usage["reasoning_tokens"] = outcome.reasoning_tokens
        timings["reasoning_ms"] = _ms(outcome.reasoning_sec)
    return {"finish_reason": outcome.finish_reason.value, "usage": usage, "timings": timings}


def choose(wire_format: WireFormatName, accept: str, message_id: str) -> WireFormat:
    """Return the encoder for a request; "auto" follows its Accept header, plain text is the fallback."""
    if wire_format is WireFormatName.CHATSTREAM:
        return ChatStreamFrames(message_id)
    wanted = accept.lower()
    if "text/event-stream" in wanted:
        return ServerSentEvents(message_id)
    return (NewlineDelimitedJSON if "application/x-ndjson" in wanted else PlainText)(message_id)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def rounded(number: float | None) -> float | None:
    """Round to one decimal place; None stays None."""
    return None if number is None else round(number, 1)
