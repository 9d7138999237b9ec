"""How many may read replies at once: each reader holds a thread of the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..engine.reply_source import ReplySource
from ..errors import TooManyRequests
from ..http.problem import RETRY_AFTER_SEC

MAX_READERS = 8  # of one reply; one more displaces the oldest of the same visitor
MAX_EXTRA_PER_VISITOR = 8  # readers of a visitor beyond one for each reply that it reads


class OpenStream(Protocol):
    """The body of a response that a server is sending."""

    @property
    def is_over(self) -> bool: ...

    def close(self) -> None: ...


StreamT = TypeVar("StreamT", bound=OpenStream)


@dataclass(frozen=True)
class Reader:
    """One open stream of a reply."""

    stream: OpenStream
    source: ReplySource
    visitor: str | None


class Readers:
    """The open reply streams of one engine, for all its apps; shared by all threads.

    The first reader of a reply of this process is always let in: its thread is the one that the reply's place
    in the queue stands for. Only those beyond it (second tabs, reconnections while the old connection still
    looks open) are limited, and all those of replies that another server generates.
    """

    def __init__(self, max_extra: int) -> None:
        """:param max_extra: readers beyond the first of each reply, all together"""
        self._max_extra = max_extra
        self._lock = threading.Lock()  # guards the list
        self._readers: list[Reader] = []  # the longest open first

    def open(self, source: ReplySource, visitor: str | None, make_stream: Callable[[], StreamT]) -> StreamT:
        """Return a new stream of the reply; at the limits, close the oldest one that the visitor has of it.

        :raises TooManyRequests: the limits are reached and the visitor has no other stream of this reply
        """
        with self._lock:
            self._readers = [reader for reader in self._readers if not reader.stream.is_over]
            displaced = self._to_displace(source, visitor)
            stream = make_stream()
            self._readers.append(Reader(stream, source, visitor))
            if displaced is not None:
                displaced.close()  # after the new one came: a reply without any reader would end
            return stream

    def _to_displace(self, source: ReplySource, visitor: str | None) -> OpenStream | None:
        on_reply = [reader for reader in self._readers if reader.source == source]
        own = [reader for reader in self._readers if reader.visitor == visitor]
        is_full = (
            len(on_reply) >= MAX_READERS
            or (visitor is not None and _num_extra(own) >= MAX_EXTRA_PER_VISITOR)
            or _num_extra(self._readers) >= self._max_extra
        )
        is_first = source.is_local and not on_reply
        if is_first or not is_full:
            return None
        for reader in on_reply:
            if reader.visitor == visitor:
                return reader.stream
        message = "too many connections read this reply, or replies at all; try again later"
        raise TooManyRequests(message, RETRY_AFTER_SEC, "readers")


def _num_extra(readers: Iterable[Reader]) -> int:
    """Count the readers beyond the first of each reply of this process."""
    sources = [reader.source for reader in readers]
    return len(sources) - len({source for source in sources if source.is_local})
