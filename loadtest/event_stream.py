"""Server-sent events out of bytes as they come."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Event(NamedTuple):
    name: str
    data: dict[str, Any]
    id: str


class EventReader:
    """Gives whole events only; comments are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks if (event := _parse(block))]


def _parse(block: bytes) -> Event | None:
    fields = dict(
        line.split(": ", 1) for line in block.decode().split("\n") if line and not line.startswith(":")
    )
    if "event" not in fields:
        return None
    return Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
