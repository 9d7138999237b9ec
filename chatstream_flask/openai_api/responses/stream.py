"""The body of a streamed response: typed server-sent events."""

from __future__ import annotations

from typing import Any

from ..answer_stream import EventStream
from .running import RunningResponse


class ResponseStream(EventStream):
    """Events of one response, from the `start`-th on; a background response goes on when it is closed."""

    def __init__(self, running: RunningResponse, start: int = 0, **options: Any) -> None:
        super().__init__(running.generations, **options)
        self._running = running
        self._num_sent = start

    def close(self) -> None:
        self.is_over = True
        if not self._running.is_background:
            self._generations.close()

    def _begin(self) -> bytes:
        return self._news()

    def _news(self) -> bytes:
        self._running.advance()
        events = self._running.events[self._num_sent :]
        self._num_sent += len(events)
        return b"".join(events)

    @property
    def _has_all(self) -> bool:
        return self._running.is_over and self._num_sent >= len(self._running.events)

    def _wait(self) -> None:
        running = self._running
        self._generations.wait(
            self._wait_sec, lambda: running.is_over or len(running.events) > self._num_sent
        )
