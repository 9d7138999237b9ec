"""A generation request: the object that HTTP threads and a worker thread share."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from ..config import SamplingParams
from ..errors import ChatStreamError, GenerationError
from .outcome import FinishReason, Outcome
from .readers import Reader, Readers
from .reasoning import Piece, Reasoning
from .reply_text import ReplyText, TokenLogprob


class Status(Enum):
    """Where a request is in its life; `TRANSITIONS` has the allowed changes."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.WAITING: frozenset({Status.RUNNING, Status.FINISHED}),
    Status.RUNNING: frozenset({Status.FINISHED}),
    Status.FINISHED: frozenset(),
}

BeforeDone = Callable[["GenerationRequest", Outcome], Outcome | None]
FollowUp = Callable[["GenerationRequest", Outcome], "GenerationRequest | None"]
AfterDone = Callable[["GenerationRequest", Outcome], None]


class TextFilter(Protocol):
    """Rewrites text while it streams; holds back what may still become part of a match."""

    def push(self, text: str) -> str: ...

    def finish(self) -> str: ...


class GenerationRequest:
    """A prompt with its sampling parameters, and the reply so far.

    One worker thread writes it, any thread may read it. The text only grows and is followed by exactly one
    `Outcome`, so a reader only needs to remember how many characters it has read. Readers that `attach` may
    come and go; when the last one has been gone for its grace period, the request ends as disconnected.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        stop_ids: frozenset[int] = frozenset(),
        ignores_eos: bool = False,
        text_filter: TextFilter | None = None,
        reasoning: Reasoning | None = None,
        shows_special_tokens: bool = False,
        follows_text: bool = False,
        kept_tokens: Mapping[int, str] | None = None,
        before_done: BeforeDone | None = None,
        after_done: AfterDone | None = None,
        is_slow_to_end: bool = False,
        follow_up: FollowUp | None = None,
        returns_token_ids: bool = False,
        is_prompt_only: bool = False,
        cache_owner: str | None = None,
        owner_kind: str = "conversation",
        num_shared: int = 0,
        headers: Mapping[str, str] | None = None,
        timeout_sec: float = 600.0,
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a waiting request.

        :param stop_ids: tokens that end this reply, in addition to the model's EOS tokens
        :param ignores_eos: go on after EOS tokens, as load generators ask for
        :param reasoning: how the reply reasons; None: all of its text is the answer
        :param shows_special_tokens: keep special tokens in the text, for a reader that parses them
        :param follows_text: the reply continues the text of the prompt, so its first word keeps its space
        :param kept_tokens: special tokens that stay in the text although others do not, with their text
        :param before_done: called before readers get the outcome, to store the reply; may return another one
        :param after_done: called after readers got the outcome, to notify the app
        :param is_slow_to_end: `before_done` calls functions of the app, which may take any time
        :param follow_up: called before `before_done`; may return another request, made by `following`, which
            continues this reply in its place; then this one has no outcome, and neither function is called
        :param returns_token_ids: keep the generated ids for readers, in `token_ids`
        :param is_prompt_only: compute the prompt, and generate nothing; max_new_tokens is not used
        :param cache_owner: the conversation or API key that may reuse cached private tokens; None: nobody may
        :param owner_kind: "conversation" or "key", for statistics
        :param num_shared: number of leading prompt tokens that every request may reuse, as they are the app's
        :param headers: headers of the HTTP request that an engine on another machine gets, too
        :param changed: condition to notify, shared by requests whose reader waits for any of them
        """
        self.id = uuid.uuid4().hex
        self.prompt_ids = prompt_ids
        self.params = params
        self.seed = params.seed if params.seed is not None else secrets.randbits(63)
        self.stop_ids = stop_ids
        self.ignores_eos = ignores_eos
        self.text_filter = text_filter
        self.reasoning = reasoning
        self.shows_special_tokens = shows_special_tokens
        self.follows_text = follows_text
        self.kept_tokens = kept_tokens or {}
        self.before_done = before_done
        self.after_done = after_done
        self.is_slow_to_end = is_slow_to_end
        self.follow_up = follow_up
        self.is_prompt_only = is_prompt_only
        self.cache_owner = cache_owner
        self.owner_kind = owner_kind
        self.num_shared = num_shared
        self.headers = headers or {}
        self.num_reused = 0  # prompt tokens; this and the next three are written by the worker thread only
        self.num_generated = 0
        self.token_ids: list[int] | None = [] if returns_token_ids else None  # generated; only grows
        self.num_reasoning = 0  # of the generated tokens
        # of the prompt tokens after the first, if asked for; all are there before any text and the outcome
        self.prompt_logprobs: list[TokenLogprob] = []
        self._clock = clock
        self.created_at = clock()
        self.queued_at = self.created_at  # later, if it continues a reply
        self.deadline = self.created_at + timeout_sec
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.is_answer_wanted = False  # set once, by any thread: the reasoning ends now
        self._reasoned_from = self._reasoned_until = 0.0
        self._changed = changed or threading.Condition()  # guards everything below
        self._status = Status.WAITING
        self._requested_stop: FinishReason | None = None
        self._readers = Readers()
        self._text = ReplyText()
        self._outcome: Outcome | None = None
        self._has_outcome = threading.Event()

    def __repr__(self) -> str:
        return f"<GenerationRequest {self.id[:8]} {self._status.name} tokens={self.num_generated}>"

    def following(self, request: GenerationRequest) -> GenerationRequest:
        """Let another request continue this reply, for the same readers and until the same deadline."""
        with self._changed:
            request._changed, request._readers = self._changed, self._readers
            request._requested_stop = self._requested_stop
        request.created_at, request.deadline = self.created_at, self.deadline
        return request

    # -- any thread ------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self._status

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome

    @property
    def text(self) -> str:
        """The answer so far."""
        with self._changed:
            return self._text.answer

    @property
    def reasoning_text(self) -> str:
        with self._changed:
            return self._text.reasoning

    @property
    def num_chars(self) -> int:
        """Characters of reasoning and answer together."""
        return self._text.num_chars

    @property
    def max_generated(self) -> int:
        """The most tokens that the reply may have, reasoning included."""
        if self.is_prompt_only:
            return 0
        num_extra = 0 if self.reasoning is None else self.reasoning.num_extra_tokens
        return self.params.max_new_tokens + num_extra

    @property
    def reasoning_sec(self) -> float | None:
        """Seconds from the first to the newest token of the reasoning; None if there was none."""
        return self._reasoned_until - self._reasoned_from if self.num_reasoning else None

    def answer_now(self) -> None:
        """Ask the worker thread to close the reasoning at its next token, so that the answer begins."""
        self.is_answer_wanted = True

    def request_stop(self, reason: FinishReason) -> None:
        """Ask the worker thread to end the reply at its next step; later calls change nothing."""
        with self._changed:
            if self._requested_stop is None:
                self._requested_stop = reason

    @property
    def stop_reason(self) -> FinishReason | None:
        """Why the request must end now: stop requested, no reader left, or timed out; None if it need not."""
        if self._requested_stop is not None:
            return self._requested_stop
        now, orphaned_at = self._clock(), self._readers.orphaned_at
        if orphaned_at is not None:
            grace_sec = self._readers.grace_sec(is_waiting=self._status is Status.WAITING)
            if now - orphaned_at >= grace_sec:
                return FinishReason.DISCONNECTED
        return FinishReason.TIMEOUT if now >= self.deadline else None

    def attach(self, reader: Reader) -> list[Reader]:
        """Add a reader; return all readers, the one attached for longest first."""
        with self._changed:
            return self._readers.attach(reader)

    def detach(self, reader: Reader, grace_sec: float) -> bool:
        """Remove a reader. Idempotent.

        :param grace_sec: how long the request lives on without any reader
        :returns: whether the last reader left before the outcome
        """
        with self._changed:
            is_orphaned = self._readers.remove(reader) and self._outcome is None
            if is_orphaned:
                self._readers.start_grace(grace_sec, self._clock())
            return is_orphaned

    def read(
        self, offset: int, timeout: float | None, is_enough: Callable[[], bool] = lambda: False
    ) -> tuple[list[Piece], Outcome | None]:
        """Return what follows the first `offset` characters, and the outcome once everything is there.

        Wait up to `timeout` seconds for something new; return ([], None) if nothing came.

        :param is_enough: returns whether to stop waiting; it is asked at each change, and by `wake_readers`
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has_news(offset) or is_enough(), timeout)
            return self._text.after(offset), self._outcome

    def wake_readers(self) -> None:
        """Let readers that wait ask whether they have waited enough."""
        with self._changed:
            self._changed.notify_all()

    def wait_for_outcome(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the outcome, so that text collects meanwhile."""
        self._has_outcome.wait(timeout)

    def has_news(self, offset: int) -> bool:
        """Return whether there is something after the first `offset` characters, or the outcome."""
        return self._text.num_chars > offset or self._outcome is not None

    def token_logprobs(self, start: int, num_chars: int | None = None) -> list[TokenLogprob]:
        """Return all log-probabilities but the first `start`, in the order of the tokens.

        There is one for each token that contributed to the text; the list only grows, together with the
        text. A token appears with the last of its characters: parts of a character wait for the whole
        character, and a possible stop string waits until it is decided. Tokens within the stop string never
        appear; the token that ends the reply only where `num_prompt_logprobs` is set. A `text_filter`
        changes the text afterwards; the tokens are those of the text before it.

        :param num_chars: only return those of the first `num_chars` characters
        """
        with self._changed:
            return self._text.logprobs(start, num_chars)

    # -- the worker thread; `publish` is called by the finisher --------------------------------------

    def start(self) -> None:
        self._change_status(Status.RUNNING)
        self.started_at = self._clock()

    def add_text(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        with self._changed:
            if self._status is Status.FINISHED:  # its worker thread hung, was replaced, and runs again
                return
            self._text.append(Piece(text), logprobs)
            self._changed.notify_all()

    def add_reasoning(self, text: str) -> None:
        with self._changed:
            if self._status is Status.FINISHED:  # as in `add_text`
                return
            self._text.append(Piece(text, is_reasoning=True))
            self._changed.notify_all()

    def count_token(self, token_id: int) -> None:
        self.num_generated += 1
        if self.token_ids is not None:
            self.token_ids.append(token_id)
        if self.first_token_at is None:
            self.first_token_at = self._clock()

    def count_reasoning(self, num_tokens: int) -> None:
        """Count the newest tokens, which `count_token` has counted, as reasoning."""
        self._reasoned_until = self._clock()
        if not self.num_reasoning:
            self._reasoned_from = self._reasoned_until
        self.num_reasoning += num_tokens

    def finish(self, reason: FinishReason, error: str | ChatStreamError | None = None) -> Outcome:
        """Change to FINISHED and return the outcome; readers get it by `publish`.

        :param error: why it failed: a sentence, or an error with its class
        """
        self._change_status(Status.FINISHED)
        now = self._clock()
        return Outcome(
            finish_reason=reason,
            error=None if error is None else str(error),
            error_class=type(error) if isinstance(error, ChatStreamError) else GenerationError,
            prompt_tokens=len(self.prompt_ids),
            cached_tokens=self.num_reused,
            completion_tokens=self.num_generated,
            reasoning_tokens=self.num_reasoning,
            reasoning_sec=self.reasoning_sec,
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
        self._has_outcome.set()

    def _change_status(self, status: Status) -> None:
        with self._changed:
            if status not in TRANSITIONS[self._status]:
                raise RuntimeError(f"{self!r} cannot become {status.name}")
            self._status = status
