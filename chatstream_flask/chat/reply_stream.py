"""The response body for one reader of a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..engine.outcome import Outcome
from ..engine.reasoning import Piece
from ..engine.reply_source import ReplySource
from ..errors import ReplyCancelled
from ..http.disconnect import Probe
from .wire_format import WireFormat


class ReplyStream(Iterator[bytes]):
    """Iterator over the events of a reply until it ends; `close` means that this reader has gone.

    A reply without readers is cancelled after `grace_sec`, in which a reader may reconnect.

    This is a class because the `finally` of a generator that was never started does not run, and the body of
    a client that disconnects early may never be iterated.
    """

    def __init__(
        self,
        source: ReplySource,
        wire: WireFormat,
        *,
        is_gone: Probe | None,
        probe_sec: float,
        heartbeat_sec: float,
        extra: dict[str, Any],
        sources: Sequence[dict[str, str]] = (),
        grace_sec: float = 0.0,
        offset: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._wire = wire
        self._is_gone = is_gone or (lambda: False)  # without a probe, a heartbeat that cannot be sent tells
        self._wait_sec = min(probe_sec, heartbeat_sec)
        self._heartbeat_sec = heartbeat_sec
        self._extra = extra  # fields of the last event
        self._sources = () if offset else sources  # a reader that comes back has them
        self._grace_sec = grace_sec
        self._clock = clock
        self._written_at = clock()
        self._offset = offset  # characters that the reader has
        self._position: int | None = None  # position in the queue that was sent last
        self._is_started = False
        self._is_over = False
        source.attach(self)

    def __repr__(self) -> str:
        return f"<ReplyStream {self._source!r} offset={self._offset}>"

    @property
    def is_over(self) -> bool:
        """Whether the reply has ended for this reader, or the reader has gone."""
        return self._is_over

    def __next__(self) -> bytes:
        """Block until there is something to send; empty chunks are never returned.

        :raises ChatStreamError: the body must not look complete: the reply failed, and the wire format
            cannot say so, or the client has disconnected
        """
        while not self._is_over:
            if self._is_gone():
                self.close()
                raise ReplyCancelled("the client has disconnected")
            if chunk := self._next_chunk():
                self._written_at = self._clock()
                return chunk
        raise StopIteration

    def close(self) -> None:
        """Detach this reader; the server calls it when it is done with the body. Idempotent."""
        self._is_over = True
        self._source.detach(self, self._grace_sec)

    def _next_chunk(self) -> bytes:
        """Return the next bytes to send; wait a moment for them and return b"" if there are none."""
        if chunk := self._news():
            return chunk
        if (
            self._offset
            and (early_sec := self._written_at + self._source.flush_interval_sec - self._clock()) > 0
        ):
            self._source.wait_for_outcome(early_sec)
        pieces, outcome = self._source.read(self._offset, self._wait_sec)
        if pieces or outcome:
            return self._news() + (b"".join(map(self._piece, pieces)) if pieces else self._end(outcome))
        if self._clock() - self._written_at >= self._heartbeat_sec:
            return self._wire.heartbeat()
        return b""

    def _news(self) -> bytes:
        """Return an event for a changed position in the queue or, once, for the start of generation."""
        if self._is_started:
            return b""
        if not self._source.is_waiting:
            self._is_started = True
            return self._start() if self._source.is_started else b""
        place = self._source.queue_place
        if place is None or place[0] == self._position:
            return b""
        self._position = place[0]
        return self._wire.queue(*place)

    def _start(self) -> bytes:
        return self._wire.start() + (self._wire.sources(self._sources) if self._sources else b"")

    def _piece(self, piece: Piece) -> bytes:
        self._offset += piece.size
        if piece.step is not None:
            return self._wire.step(piece.step, self._offset)
        encode = self._wire.reasoning if piece.is_reasoning else self._wire.text
        return encode(piece.text, self._offset)

    def _end(self, outcome: Outcome | None) -> bytes:
        assert outcome is not None
        self._is_over = True
        return self._wire.end(outcome, self._extra, self._offset)
