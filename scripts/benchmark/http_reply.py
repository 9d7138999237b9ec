"""HttpReply: the bytes received over one connection, and when; parsed after the round."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from chatstream_flask.client import EventReader

HEAD_END = b"\r\n\r\n"


@dataclass
class HttpReply:
    """One response; the server must close the connection at its end."""

    asked_at: float
    received: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[int, float]] = field(default_factory=list)  # bytes received so far, time

    def add(self, data: bytes) -> None:
        self.received += data
        self.arrivals.append((len(self.received), time.perf_counter()))

    @property
    def ended_at(self) -> float:
        return self.arrivals[-1][1]

    @cached_property
    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The events of the response, each with the time at which it was complete.

        :raises RuntimeError: the status is not 200, or the server reported an error in the stream
        """
        head, _, _ = bytes(self.received).partition(HEAD_END)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the server answered {bytes(self.received[:500])!r}")
        is_chunked = b"transfer-encoding: chunked" in head.lower()
        reader, events = EventReader(), list[tuple[float, dict[str, Any]]]()
        for end, data in (
            self._chunks(len(head + HEAD_END)) if is_chunked else self._arrivals(len(head + HEAD_END))
        ):
            at = self._time_of(end)
            events += ((at, event.data) for event in reader.feed(data))
        if wrong := next((data for _, data in events if "error" in data), None):
            raise RuntimeError(f"the server answered {wrong}")
        return events

    @property
    def text_times(self) -> list[float]:
        """The times at which text arrived."""
        return [at for at, data in self.events if _text(data)]

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.text_times)]

    @property
    def text(self) -> str:
        return "".join(_text(data) for _, data in self.events)

    @property
    def usage(self) -> dict[str, Any]:
        """The numbers of tokens as the server counts them.

        :raises RuntimeError: it reported none
        """
        usages = [data["usage"] for _, data in self.events if data.get("usage")]
        if not usages:
            raise RuntimeError(f"the reply ended without numbers of tokens: {bytes(self.received[-300:])!r}")
        usage: dict[str, Any] = usages[-1]
        return usage

    def _chunks(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks of the body, each with the number of bytes received at its end."""
        while (line_end := self.received.find(b"\r\n", position)) >= 0:
            size = int(self.received[position:line_end].partition(b";")[0], 16)
            begin = line_end + 2
            if size == 0:
                return
            yield begin + size, bytes(self.received[begin : begin + size])
            position = begin + size + 2

    def _arrivals(self, begin: int) -> Iterator[tuple[int, bytes]]:
        for end, _ in self.arrivals:
            if end > begin:
                yield end, bytes(self.received[begin:end])
                begin = end

    def _time_of(self, num_bytes: int) -> float:
        """Return when this many bytes had been received."""
        return self.arrivals[bisect_left(self.arrivals, (num_bytes,))][1]


def _text(data: dict[str, Any]) -> str:
    return "".join(choice.get("text") or "" for choice in data.get("choices", ()))
