"""Server-sent events from the bytes of a response, however they are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One event of a stream."""

    name: str  # "message" where the server names none, as the OpenAI API does
    data: dict[str, Any]
    id: str = ""


class EventReader:
    """Incremental parser of events whose data is JSON; comments and OpenAI's closing `[DONE]` are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete."""
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks if (event := _parse(block))]


def read_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a response body as they arrive."""
    reader = EventReader()
    for chunk in chunks:
        yield from reader.feed(chunk)


def parse_events(body: bytes) -> list[Event]:
    """Return the events of a body; an incomplete event at its end is left out."""
    return EventReader().feed(body)


def text_of(events: Iterable[Event]) -> str:
    """Return the reply's text as far as these events contain it."""
    return "".join(event.data["text"] for event in events if event.name == "text")


def _parse(block: bytes) -> Event | None:
    lines = (line for line in block.decode().split("\n") if line and not line.startswith(":"))
    fields = dict(line.split(": ", 1) for line in lines)
    if fields.get("data", "[DONE]") == "[DONE]":
        return None
    return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id", ""))
