"""A request: the one object that an HTTP thread and a generation thread share."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..config import SamplingParams


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.WAITING: frozenset({Status.RUNNING, Status.FINISHED}),
    Status.RUNNING: frozenset({Status.FINISHED}),
    Status.FINISHED: frozenset(),
}


class FinishReason(Enum):
    """Why a reply ended; OpenAI's words where they exist."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"  # the server stops
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a request ended: the last thing its reader gets, exactly once."""

    finish_reason: FinishReason
    error: str | None = None  # a sentence for the client; set exactly when the reason is ERROR
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, whose keys and values were still there
    completion_tokens: int = 0
    is_started: bool = False  # it had a slot
    queue_sec: float = 0.0  # arrival to the start of prefill
    first_token_sec: float | None = None  # arrival to the first token
    total_sec: float = 0.0

    @property
    def is_success(self) -> bool:
        return self.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)

    @property
    def phase(self) -> str:
        """How far it had come."""
        if self.first_token_sec is not None:
            return "decode"
        return "prefill" if self.is_started else "waiting"

    @property
    def tokens_per_sec(self) -> float | None:
        """Decode rate: tokens after the first over the time after the first."""
        if self.first_token_sec is None or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / max(self.total_sec - self.first_token_sec, 1e-9)


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token in the model's own distribution: float32 log_softmax of its scores as they came,
    before grammar, bias, penalties and temperature.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # as many of the likeliest as were asked for, falling


QUEUE_GRACE_SEC = 5.0  # a reload takes less, and those who are there should not wait for those who left

Hook = Callable[["GenerationRequest", Outcome], None]


class TextFilter(Protocol):
    """Rewrites text as it streams, holding back what may still become part of a match."""

    def push(self, text: str) -> str: ...

    def finish(self) -> str: ...


class Closable(Protocol):
    def close(self) -> None: ...


class GenerationRequest:
    """What was asked, and the text so far: written by one generation thread, read by any reader.

    The text only grows and then gets exactly one Outcome, so a reader needs nothing but the number of
    characters it has already got. Readers that `attach` may come and go; a while after the last one has
    left for good, the request ends as disconnected.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        stop_ids: frozenset[int] = frozenset(),
        text_filter: TextFilter | None = None,
        shows_special_tokens: bool = False,
        before_done: Hook | None = None,
        after_done: Hook | None = None,
        cache_owner: str | None = None,
        num_shared: int = 0,
        timeout_sec: float = 600.0,
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param cache_owner: whose the prompt is: another request of the same owner may go on from it
        :param num_shared: first tokens of the prompt that are the same for everybody: a system text
        :param changed: shared by requests whose reader waits for any of them
        """
        self.id = uuid.uuid4().hex
        self.prompt_ids = prompt_ids
        self.params = params
        self.seed = params.seed if params.seed is not None else secrets.randbits(63)
        self.stop_ids = stop_ids  # tokens that end this reply, beyond the model's own
        self.text_filter = text_filter
        self.shows_special_tokens = shows_special_tokens  # for a reader that parses them
        self.place: Closable | None = None  # its right to be in work, given back when it is finished
        self.before_done = before_done  # keeps the reply, before its reader sees the outcome
        self.after_done = after_done  # tells the app, after that
        self.cache_owner = cache_owner
        self.num_shared = num_shared
        self.num_reused = 0  # tokens of the prompt; this and the next written by the generation thread only
        self.num_generated = 0
        self._clock = clock
        self.created_at = clock()
        self.deadline = self.created_at + timeout_sec
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self._changed = changed or threading.Condition()  # guards everything below
        self._status = Status.WAITING
        self._end: FinishReason | None = None  # wish of another thread
        self._readers: list[Closable] = []
        self._orphaned_at: float | None = None
        self._grace_sec = 0.0
        self._pieces: list[str] = []
        self._num_chars = 0
        self._logprobs: list[TokenLogprob] = []
        self._logprob_chars: list[int] = []  # for each, the characters told with it and before
        self._outcome: Outcome | None = None
        self._over = threading.Event()  # it has its outcome

    def __repr__(self) -> str:
        return f"<GenerationRequest {self.id[:8]} {self._status.name} tokens={self.num_generated}>"

    # -- any thread ------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self._status

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._pieces)

    @property
    def num_chars(self) -> int:
        return self._num_chars

    def ask_to_end(self, reason: FinishReason) -> None:
        """The generation thread ends it at its next step; the first wish counts."""
        with self._changed:
            if self._end is None:
                self._end = reason

    @property
    def stop_reason(self) -> FinishReason | None:
        """Why it must not go on, if it must not: asked by another thread, left alone, or out of time."""
        if self._end is not None:
            return self._end
        now, orphaned_at = self._clock(), self._orphaned_at
        if orphaned_at is not None and now - orphaned_at >= self._patience_sec:
            return FinishReason.DISCONNECTED
        return FinishReason.TIMEOUT if now >= self.deadline else None

    @property
    def _patience_sec(self) -> float:
        """With a reader that has left."""
        is_waiting = self._status is Status.WAITING
        return min(self._grace_sec, QUEUE_GRACE_SEC) if is_waiting else self._grace_sec

    def attach(self, reader: Closable) -> list[Closable]:
        """Its readers now, the longest attached first."""
        with self._changed:
            self._readers.append(reader)
            self._orphaned_at = None
            return list(self._readers)

    def detach(self, reader: Closable, grace_sec: float) -> bool:
        """True when the last one has left before the end: another one has `grace_sec` seconds. Idempotent."""
        with self._changed:
            if reader not in self._readers:
                return False
            self._readers.remove(reader)
            is_left_alone = not self._readers and self._outcome is None
            if is_left_alone:
                self._orphaned_at, self._grace_sec = self._clock(), grace_sec
            return is_left_alone

    def read(self, offset: int, timeout: float | None) -> tuple[str, Outcome | None]:
        """Text after the first `offset` characters, and the outcome once all text is told.

        Waits up to `timeout` seconds for something new; ("", None) when nothing came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has_news(offset), timeout)
            return self._text_after(offset), self._outcome

    def collect(self, sec: float) -> None:
        """Waits so long for more text, but not beyond the end."""
        self._over.wait(sec)

    def has_news(self, offset: int) -> bool:
        """There is text after the first `offset` characters, or the outcome."""
        return self._num_chars > offset or self._outcome is not None

    def token_logprobs(self, start: int, num_chars: int | None = None) -> list[TokenLogprob]:
        """Those after the first `start`, and if `num_chars` is given, only those of that much text.

        There is one for each token that made any of the text, in order; the list only grows, together
        with the text. A token is told with the last of its characters: parts of a character wait for the
        whole one, and what may become a stop string waits until it is clear. Tokens that lie within the
        stop string and the token that ends the reply are never told. A `text_filter` changes the text
        after this, so with one the tokens are of the text before it.
        """
        with self._changed:
            stop = None if num_chars is None else bisect_right(self._logprob_chars, num_chars)
            return self._logprobs[start:stop]

    # -- the generation thread; `publish` also the engine's finisher --------------------------------

    def start(self) -> None:
        self._move(Status.RUNNING)
        self.started_at = self._clock()

    def add_text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        with self._changed:
            if self._status is Status.FINISHED:  # without its thread, which hung
                return
            self._pieces.append(text)
            self._num_chars += len(text)
            self._logprobs += logprobs
            self._logprob_chars += [self._num_chars] * len(logprobs)
            self._changed.notify_all()

    def count_token(self) -> None:
        self.num_generated += 1
        if self.first_token_at is None:
            self.first_token_at = self._clock()

    def finish(self, reason: FinishReason, error: str | None = None) -> Outcome:
        """The one door to FINISHED; the reader learns of it through `publish`."""
        self._move(Status.FINISHED)
        now = self._clock()
        return Outcome(
            finish_reason=reason,
            error=error,
            prompt_tokens=len(self.prompt_ids),
            cached_tokens=self.num_reused,
            completion_tokens=self.num_generated,
            is_started=self.started_at is not None,
            queue_sec=(now if self.started_at is None else self.started_at) - self.created_at,
            first_token_sec=None if self.first_token_at is None else self.first_token_at - self.created_at,
            total_sec=now - self.created_at,
        )

    def publish(self, outcome: Outcome) -> None:
        with self._changed:
            if self._outcome is not None:
                raise RuntimeError(f"{self!r} already has its outcome")
            self._outcome = outcome
            self._changed.notify_all()
        self._over.set()

    def _move(self, status: Status) -> None:
        with self._changed:
            if status not in TRANSITIONS[self._status]:
                raise RuntimeError(f"{self!r} cannot become {status.name}")
            self._status = status

    def _text_after(self, offset: int) -> str:
        """Walks back over the newest pieces only: no cost in the length of the reply."""
        missing, tail = self._num_chars - offset, []
        for piece in reversed(self._pieces):
            if missing <= 0:
                break
            tail.append(piece[-missing:] if missing < len(piece) else piece)
            missing -= len(piece)
        return "".join(reversed(tail))
