"""The choices of one request: accepted together or not at all, read by one reader, cancelled together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

from ..config import VisitorLimits
from ..engine.engine import Engine
from ..engine.outcome import FinishReason, Outcome
from ..engine.reply_text import TokenLogprob
from ..engine.request import GenerationRequest
from ..errors import BadRequest
from ..hooks.hooked_reply import HookedReply
from ..reply_format.deltas import ANNOTATIONS, CALLS, Delta

OnEnd = Callable[[GenerationRequest, Outcome], None]


class News(NamedTuple):
    """What a choice has that was not read before."""

    deltas: list[Delta]
    logprobs: list[TokenLogprob]
    token_ids: list[int]  # of a request that keeps them


NO_NEWS = News([], [], [])


class Choice:
    """One choice and how far it has been read."""

    def __init__(
        self,
        hooked: HookedReply,
        *,
        has_single_call: bool = False,
        num_echoed: int | None = None,
    ) -> None:
        """Start to read.

        :param hooked: the reply, which has been started
        :param has_single_call: leave out tool calls after the first
        :param num_echoed: begin the log-probabilities with those of the prompt, and with this many of the
            most likely tokens for each; None: leave the prompt out
        """
        self._hooked = hooked
        self._num_deltas = 0  # that the hooks have let through
        self._has_begun = False
        self._has_single_call = has_single_call
        self._num_echoed = num_echoed
        self.outcome: Outcome | None = None  # set when everything has been read
        self._num_chars = 0
        self._num_logprobs = 0
        self._num_ids = 0

    @property
    def request(self) -> GenerationRequest:
        """The newest generation of the choice."""
        return self._hooked.generation

    def cancel(self, engine: Engine, reason: FinishReason) -> None:
        self._hooked.cancel(engine, reason)

    @property
    def has_news(self) -> bool:
        has_ids = len(self.request.token_ids or ()) > self._num_ids
        return self.outcome is None and (has_ids or self.request.has_news(self._num_chars))

    def read(self, outcome: Outcome | None = None) -> News:
        """Return what is new without waiting.

        :param outcome: that of the request, if it is known already but not to its readers
        """
        if self.outcome is not None:
            return NO_NEWS
        deltas = self._let_through(outcome) if self._hooked.passes else self._parsed(outcome)
        if not self._has_begun and (sources := self._hooked.context.sources):
            deltas.insert(0, {ANNOTATIONS: [_citation(**source) for source in sources]})
        self._has_begun = True
        if self._has_single_call:
            deltas = [d for d in deltas if all(call["index"] == 0 for call in d.get(CALLS, ()))]
        logprobs: list[TokenLogprob] = []
        if self.request.params.num_logprobs is not None:
            logprobs = self.request.token_logprobs(self._num_logprobs, self._num_chars)
            self._num_logprobs += len(logprobs)
        if self._num_echoed is not None and (self._num_chars or self.outcome is not None):
            logprobs = self.prompt_logprobs(self._num_echoed) + logprobs
            self._num_echoed = None
        token_ids = (self.request.token_ids or [])[self._num_ids :]
        self._num_ids += len(token_ids)
        return News(deltas, logprobs, token_ids)

    def _parsed(self, outcome: Outcome | None) -> list[Delta]:
        pieces, known = self.request.read(self._num_chars, 0)
        self.outcome = outcome or known
        deltas: list[Delta] = []
        for text, is_reasoning, _ in pieces:
            self._num_chars += len(text)
            deltas += [{"reasoning_content": text}] if is_reasoning else self._hooked.parser.push(text)
        return deltas if self.outcome is None else deltas + self._hooked.parser.finish()

    def _let_through(self, outcome: Outcome | None) -> list[Delta]:
        self._hooked.pump()
        self.outcome = outcome or self.request.outcome  # first: once it is there, all has been let through
        self._num_chars = self._hooked.num_read
        deltas = self._hooked.shown.deltas_after(self._num_deltas)
        self._num_deltas += len(deltas)
        return deltas

    def prompt_logprobs(self, num_top: int) -> list[TokenLogprob]:
        """Return those of all tokens of the prompt; all are there once there is text, or the outcome."""
        first = TokenLogprob(self.request.prompt_ids[0], None, ())
        others = self.request.prompt_logprobs
        return [first, *(replace(entry, top=entry.top[:num_top]) for entry in others)]

    @property
    def finish_reason(self) -> str:
        assert self.outcome is not None
        has_called = self._hooked.has_client_calls and self.outcome.finish_reason is FinishReason.STOP
        return "tool_calls" if has_called else self.outcome.finish_reason.value


def _citation(title: str, url: str = "") -> dict[str, Any]:
    """Return a source in the API's form; the numbers say that it is of no certain place in the text."""
    return {
        "type": "url_citation",
        "url_citation": {"title": title, "url": url, "start_index": 0, "end_index": 0},
    }


class Generations:
    """The generation requests of all choices; holds their places until they end or it is closed."""

    def __init__(self, engine: Engine, num: int, visitor: str | None, limits: VisitorLimits) -> None:
        """Reserve the places.

        :raises TooManyRequests: there are not enough
        """
        self.choices: list[Choice] = []
        self._engine = engine
        self.changed = threading.Condition()  # notified by all choices
        self._reservations = engine.reserve_all(num, visitor, limits=limits, is_api=True)

    def __repr__(self) -> str:
        return f"<Generations {[choice.request for choice in self.choices]}>"

    def __enter__(self) -> Generations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it on an error; otherwise the answer continues to read it.

        The tokens of a prompt that was refused count for its visitor.
        """
        if isinstance(error, BadRequest) and self._reservations:
            self._reservations.pop().close(error.num_tokens)
        if error is not None:
            self.close()

    def submit(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            self._engine.submit(choice.request, self._reservations[0])
            del self._reservations[0]  # the request has its place now
            self.choices.append(choice)

    @property
    def are_over(self) -> bool:
        return all(choice.outcome is not None for choice in self.choices)

    @property
    def place_in_queue(self) -> tuple[int, float | None] | None:
        """Position of the next choice to run and the estimated seconds; None if one runs or none waits."""
        if any(choice.request.started_at is not None for choice in self.choices):
            return None
        places = [self._engine.queue_place(choice.request) for choice in self.choices]
        return min((place for place in places if place is not None), key=lambda place: place[0], default=None)

    def collect(self, since_sec: float) -> None:
        """Wait for more text if the last was sent a moment ago, but not longer than a choice runs."""
        running = [choice for choice in self.choices if choice.outcome is None]
        if running and (early_sec := self._engine.flush_interval_sec - since_sec) > 0:
            running[-1].request.wait_for_outcome(early_sec)

    def wait(self, timeout_sec: float, is_ready: Callable[[], bool] = lambda: False) -> None:
        """Wait until there is something to read, or the timeout.

        :param is_ready: says after each change of `changed` whether the caller has anything else to do
        """
        with self.changed:
            self.changed.wait_for(
                lambda: any(choice.has_news for choice in self.choices) or is_ready(), timeout_sec
            )

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End the choices that still run."""
        for choice in self.choices:
            if choice.outcome is None:
                choice.cancel(self._engine, reason)

    def close(self) -> None:
        """Cancel choices that still run and free unused places; they count as disconnected. Idempotent."""
        self.cancel(FinishReason.DISCONNECTED)
        for reservation in self._reservations:
            reservation.close()
