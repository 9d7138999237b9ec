"""Bodies of streamed answers: server-sent events about the choices of a request."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from ..chat.wire_format import server_sent_event
from ..engine.reply_text import TokenLogprob
from ..http.disconnect import Probe
from .answer import Answer, usage_of
from .errors import error_object
from .generations import NO_NEWS, Choice, Generations, News

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


class EventStream(Iterator[bytes], ABC):
    """Iterator over events about generations; `close` cancels those that still run.

    The first event is returned without waiting, so that a client knows at once that it was accepted.
    """

    def __init__(
        self,
        generations: Generations,
        *,
        is_gone: Probe,
        probe_sec: float,
        heartbeat_sec: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generations = generations
        self._is_gone = is_gone
        self._wait_sec = min(probe_sec, heartbeat_sec)
        self._heartbeat_sec = heartbeat_sec
        self._clock = clock
        self._written_at = clock()
        # Position in the queue and estimate that were sent last.
        self._place: tuple[int, float | None] | None = None
        self._has_sent = False
        self.is_over = False
        self._events = self._run()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._generations!r}>"

    def __next__(self) -> bytes:
        """Blocks until there is something to send."""
        event = next(self._events)
        self._written_at = self._clock()
        return event

    def close(self) -> None:
        """Cancel what still runs; the server calls it when it is done with the body. Idempotent."""
        self.is_over = True
        self._generations.close()

    @abstractmethod
    def _begin(self) -> bytes:
        """Return the events before all others, if there are any."""

    @abstractmethod
    def _news(self) -> bytes:
        """Return the events of what is new."""

    @property
    @abstractmethod
    def _has_all(self) -> bool:
        """Whether there will be no news any more."""

    def _finish(self) -> bytes:
        """Return the events after all others."""
        return b""

    def _wait(self) -> None:
        self._generations.wait(self._wait_sec)

    def _run(self) -> Iterator[bytes]:
        yield self._begin() or KEEP_ALIVE
        while not self.is_over:
            if self._has_sent:
                self._generations.collect(self._clock() - self._written_at)
            if self._is_gone():
                self.close()
            elif events := self._queue_news() + self._news():
                self._has_sent = True
                yield events
            elif self._has_all:
                if last := self._finish():
                    yield last
                return
            elif self._clock() - self._written_at >= self._heartbeat_sec:
                yield KEEP_ALIVE
            else:
                self._wait()

    def _queue_news(self) -> bytes:
        """Return a comment with a changed position in the queue; clients take every event for a chunk."""
        place = self._generations.place_in_queue
        if place is None or place == self._place:
            return b""
        is_new = self._place is None or place[0] != self._place[0]
        self._place = place
        eta = "" if place[1] is None else f" eta={place[1]:.1f}"
        return f": queue position={place[0]}{eta}\n\n".encode() if is_new else b""


class AnswerStream(EventStream):
    """Chunks of a completion, and [DONE]."""

    def __init__(
        self, generations: Generations, answer: Answer, *, num_prompts: int, has_usage: bool, **options: Any
    ) -> None:
        super().__init__(generations, **options)
        self._answer = answer
        self._num_prompts = num_prompts
        self._has_usage = has_usage
        # Log-probabilities of text that the parser holds back, by choice.
        self._held_logprobs: dict[int, list[TokenLogprob]] = {}

    def _begin(self) -> bytes:
        firsts = (self._answer.first(i) for i in range(len(self._generations.choices)))
        return b"".join(self._chunk(first) for first in firsts if first is not None)

    @property
    def _has_all(self) -> bool:
        return self._generations.are_over

    def _news(self) -> bytes:
        news = b""
        for index, choice in enumerate(self._generations.choices):
            if choice.outcome is None:
                news += self._news_of(index, choice)
            if self.is_over:
                break
        return news

    def _news_of(self, index: int, choice: Choice) -> bytes:
        news = choice.read()
        news = news._replace(logprobs=self._held_logprobs.pop(index, []) + news.logprobs)
        events, news = self._tell(index, news)
        if choice.outcome is None:
            self._held_logprobs[index] = news.logprobs
            return events
        if failure := choice.outcome.failure:
            self.close()
            return events + server_sent_event({"error": error_object(failure)}) + DONE
        return events + self._chunk(self._answer.end(index, choice.finish_reason, news))

    def _tell(self, index: int, news: News) -> tuple[bytes, News]:
        """Return the events of new content, and the news that they do not tell."""
        parts = []
        for delta in news.deltas:
            parts.append(self._answer.part(index, delta, news))
            news = NO_NEWS
        is_running = self._generations.choices[index].outcome is None
        if is_running and news.token_ids and (part := self._answer.token_chunk(index, news)):
            parts.append(part)
            news = NO_NEWS
        return b"".join(map(self._chunk, parts)), news

    def _finish(self) -> bytes:
        if not self._has_usage:
            return DONE
        usage = usage_of(self._generations.choices, self._num_prompts)
        return server_sent_event(self._answer.chunk([]) | {"usage": usage}) + DONE

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return server_sent_event(self._answer.chunk([choice]) | ({"usage": None} if self._has_usage else {}))
