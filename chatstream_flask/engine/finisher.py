"""What follows the last token of a reply, away from the generation threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .outcome import FinishReason, Outcome
from .request import GenerationRequest

logger = logging.getLogger("chatstream_flask")

MAX_THREADS = 32


class Finisher:
    """First the reply is kept, then its place is free and its reader learns of the end, then the app does.

    A slow store holds up only its own reply; callbacks have a thread of their own.
    """

    def __init__(self, num_threads: int, on_end: Callable[[Outcome], None] = lambda outcome: None) -> None:
        self._on_end = on_end  # counts it, before its reader knows
        self._finisher = ThreadPoolExecutor(min(num_threads, MAX_THREADS), "chatstream-finisher")
        self._callbacks = ThreadPoolExecutor(1, "chatstream-callback")

    def submit(self, request: GenerationRequest, outcome: Outcome) -> None:
        try:
            self._finisher.submit(self._finish, request, outcome)
        except RuntimeError:  # the interpreter is ending
            self._finish(request, outcome)

    def close(self, *, wait: bool) -> None:
        """Delivers what was submitted; idempotent."""
        self._finisher.shutdown(wait)
        self._callbacks.shutdown(wait)

    def _finish(self, request: GenerationRequest, outcome: Outcome) -> None:
        try:
            if request.before_done is not None:
                request.before_done(request, outcome)
        except Exception:
            logger.exception("the reply of %r could not be kept", request)
            error = "the reply could not be stored; try again"
            outcome = replace(outcome, finish_reason=FinishReason.ERROR, error=error)
        if request.place is not None:
            request.place.close()
        request.before_done = None  # readers may keep the request for a while, but not all that hangs on it
        self._on_end(outcome)
        request.publish(outcome)
        if request.after_done is not None:
            try:
                self._callbacks.submit(self._notify, request, outcome)
            except RuntimeError:
                self._notify(request, outcome)

    def _notify(self, request: GenerationRequest, outcome: Outcome) -> None:
        try:
            if request.after_done is not None:
                request.after_done(request, outcome)
        except Exception:
            logger.exception("the callback of %r failed", request)
        request.after_done = None
