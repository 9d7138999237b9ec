"""Responses while they are generated, and a while longer: what has become of each, for all who read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

from ...chat.wire_format import server_sent_event
from ...engine.outcome import Outcome
from ...engine.reply_text import TokenLogprob
from ...engine.request import GenerationRequest
from ...errors import ChatStreamError
from ..generations import Generations, News, OnEnd
from .output import Json, ResponseOutput

MAX_KEPT = 256  # background responses whose events are kept after their end
CANCEL_SEC = 10.0  # a running reply ends at its next step


class RunningResponse:
    """One response: its events so far, which only grow, and what it is now.

    Whoever reads it advances it; it is stored by `finish` before anybody sees its end, readers or not.

    :param output: builds it from the deltas of its reply
    :param keep: stores it once it has ended
    """

    def __init__(
        self, output: ResponseOutput, keep: Callable[[], None], *, owner: str | None, is_background: bool
    ) -> None:
        self.output = output
        self.owner = owner
        self.is_background = is_background
        self.generations: Generations
        self.events: list[bytes] = []
        self.is_over = False
        self.failure: ChatStreamError | None = None  # why it has no answer, or was not stored
        self._keep = keep
        self._lock = threading.Lock()  # guards all of the above and the choice
        self._last: list[bytes] | None = None  # the events of its end, until its place in the queue is free
        self._held_logprobs: list[TokenLogprob] = []  # of text that the parser holds back

    def begin(self, submit: Callable[[OnEnd], Generations], keep_first: Callable[[], None]) -> None:
        """Submit it, and store it for the first time; its end waits until that is done."""
        with self._lock:
            self.generations = submit(self.finish)
            with self.generations:
                self._add(self.output.begin())
                keep_first()

    @property
    def request(self) -> GenerationRequest:
        return self.generations.choices[0].request

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change it any more, which its readers may not know yet."""
        return self.request.outcome is not None

    @property
    def response(self) -> Json:
        """The response as it is now."""
        self.advance()
        with self._lock:
            return deepcopy(self.output.response)

    def advance(self) -> None:
        """Turn what is new into events."""
        with self._lock:
            if self.is_over:
                return
            if self._last is None:
                if self.request.started_at is not None:
                    self._add(self.output.start())
                self._add(self._told(self.generations.choices[0].read()))
            elif self.request.outcome is not None:
                self.events += self._last
                self.is_over = True
        with self.generations.changed:
            self.generations.changed.notify_all()

    def finish(self, request: GenerationRequest, outcome: Outcome) -> None:
        """Store the response; called when its generation has ended, before readers get the outcome."""
        with self._lock:
            if request.started_at is not None:
                self._add(self.output.start())
            self._add(self._told(self.generations.choices[0].read(outcome)))
            self.failure = outcome.failure
            last = [_written(event) for event in self.output.complete(outcome)]
            if self.failure is None or self.is_background:
                try:
                    self._keep()
                except ChatStreamError as error:
                    self.failure = error
                    self.output.fail(error)
            self._last = [*last, _written(self.output.end())]

    def cancel(self) -> None:
        """End it, and wait until it has ended."""
        self.generations.cancel()
        self.request.wait_for_outcome(CANCEL_SEC)

    def _told(self, news: News) -> Iterator[Json]:
        """Yield the events of what is new; log-probabilities come with the text that they are of."""
        self._held_logprobs += news.logprobs
        for delta in news.deltas:
            logprobs: list[TokenLogprob] = []
            if delta.get("content"):
                logprobs, self._held_logprobs = self._held_logprobs, []
            yield from self.output.add(delta, logprobs)

    def _add(self, events: Iterable[Json]) -> None:
        """Write each event at once, as the next one changes the response that it shows."""
        self.events += map(_written, events)


class RunningResponses:
    """The background responses of this process: those that run, and for some time those that have ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._all: dict[str, RunningResponse] = {}
        self._ended: dict[str, float] = {}  # when each was first seen to have ended, the oldest first

    def add(self, running: RunningResponse) -> None:
        with self._lock:
            self._all[running.output.response["id"]] = running

    def find(self, response_id: str, owner: str | None, keep_sec: float) -> RunningResponse | None:
        """Return a response of this owner.

        :param keep_sec: how long a response is kept after its end
        """
        self._forget_old(keep_sec)
        running = self._all.get(response_id)
        return running if running is not None and running.owner == owner else None

    def remove(self, response_id: str) -> None:
        with self._lock:
            self._all.pop(response_id, None)
            self._ended.pop(response_id, None)

    def _forget_old(self, keep_sec: float) -> None:
        now = self._clock()
        with self._lock:
            for response_id, running in self._all.items():
                if running.has_ended:
                    self._ended.setdefault(response_id, now)
            while self._ended:
                response_id, ended_at = next(iter(self._ended.items()))
                if now - ended_at < keep_sec and len(self._ended) <= MAX_KEPT:
                    return
                del self._ended[response_id], self._all[response_id]


def _written(event: Json) -> bytes:
    return server_sent_event(event, name=event["type"])
