"""The end of a reply, away from the worker threads: store it, free its place, notify its readers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..errors import ChatStreamError, NotAccepting
from .outcome import FinishReason, Outcome
from .request import GenerationRequest

logger = logging.getLogger("chatstream_flask")

MAX_THREADS = 32


class Finisher:
    """Runs for each finished request: `before_done`, `release`, `publish`, and then `after_done`.

    So a reply is stored before its readers see the end, and its place is free when they do. A slow store
    delays only its own reply; `after_done` callbacks have a thread of their own, and so has each request
    that is slow to end.
    """

    def __init__(
        self,
        num_threads: int,
        num_places: int,
        release: Callable[[GenerationRequest], None],
        hand_over: Callable[[GenerationRequest, GenerationRequest], None],
        record: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Start without threads, which are started as they are needed.

        :param num_threads: how many finish requests
        :param num_places: the most requests that are not released, and may be slow to end at the same time
        :param release: frees the place of a request
        :param hand_over: gives the place of a request to the one that follows it
        :param record: counts an outcome, before readers see it
        """
        self._release = release
        self._hand_over = hand_over
        self._record = record
        self._finishers = ThreadPoolExecutor(min(num_threads, MAX_THREADS), "chatstream-finisher")
        self._slow = ThreadPoolExecutor(num_places, "chatstream-slow-finisher")
        self._callbacks = ThreadPoolExecutor(1, "chatstream-callback")

    def submit(self, request: GenerationRequest, outcome: Outcome) -> None:
        try:
            pool = self._slow if request.is_slow_to_end else self._finishers
            pool.submit(self._finish, request, outcome)
        except RuntimeError:  # the interpreter is shutting down
            self._finish(request, outcome)

    def close(self, *, wait: bool) -> None:
        """Accept nothing new; what was submitted is still done. Idempotent."""
        self._finishers.shutdown(wait)
        self._slow.shutdown(wait)
        self._callbacks.shutdown(wait)

    def _finish(self, request: GenerationRequest, outcome: Outcome) -> None:
        if self._goes_on(request, outcome):
            return
        try:
            if request.before_done is not None:
                outcome = request.before_done(request, outcome) or outcome
        except Exception as error:
            logger.exception("the reply of %r could not be stored", request)
            outcome = not_stored(outcome, error)
        self._release(request)
        request.before_done = None  # readers may hold the request for long; free what its hooks refer to
        self._record(outcome)
        request.publish(outcome)
        if request.after_done is not None:
            try:
                self._callbacks.submit(self._call_back, request, outcome)
            except RuntimeError:  # the interpreter is shutting down
                self._call_back(request, outcome)

    def _goes_on(self, request: GenerationRequest, outcome: Outcome) -> bool:
        """Let a request continue the reply, if there is one."""
        if request.follow_up is None:
            return False
        try:
            following = request.follow_up(request, outcome)
            if following is not None:
                self._hand_over(request, following)
            return following is not None
        except NotAccepting:  # the engine stops meanwhile
            return False
        except Exception:
            logger.exception("%r could not be continued", request)
            return False

    def _call_back(self, request: GenerationRequest, outcome: Outcome) -> None:
        try:
            if request.after_done is not None:
                request.after_done(request, outcome)
        except Exception:
            logger.exception("the callback of %r failed", request)
        request.after_done = None


def not_stored(outcome: Outcome, error: Exception) -> Outcome:
    """Return the outcome of a reply that could not be stored."""
    if not isinstance(error, ChatStreamError):
        error_text = "the reply could not be stored; try again"
        return replace(outcome, finish_reason=FinishReason.ERROR, error=error_text)
    return replace(
        outcome,
        finish_reason=FinishReason.ERROR,
        error=f"the reply could not be stored: {error}",
        error_class=type(error),
    )
