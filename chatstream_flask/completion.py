"""What follows the last token of a reply: its turn is kept, its conversation is free, the app is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask, Request

from .conversation.turn import Turn
from .engine.request import FinishReason, GenerationRequest, Outcome
from .errors import ConversationBusy

SUCCESS = "success"
DISCONNECTED_BEFORE_STREAMING = "client_disconnected_before_streaming"
DISCONNECTED_WHILE_STREAMING = "client_disconnected_while_streaming"
UNKNOWN_ERROR = "unknown_error_occurred"

Callback = Callable[[Request, str], None]


class Completion:
    """`keep` and `tell` are the hooks of a generation, called once each, in this order."""

    def __init__(
        self,
        app: Flask,
        request: Request,
        turn: Turn,
        on_close: Callable[[], None],
        callback: Callback | None,
        logger: logging.Logger,
    ) -> None:
        self._app = app
        self._request = request
        self._turn = turn
        self._on_close = on_close
        self._callback = callback
        self._logger = logger

    def keep(self, generation: GenerationRequest, outcome: Outcome) -> None:
        """Before the client sees the end, so that its next turn finds this one kept and the way free."""
        try:
            if outcome.is_success:
                if not self._turn.keep(generation.text, is_interrupted=False):
                    raise ConversationBusy("the conversation was deleted or taken over meanwhile")
            elif outcome.finish_reason is not FinishReason.ERROR and generation.text:
                self._turn.keep(generation.text, is_interrupted=True)
        finally:
            self.close()

    def tell(self, generation: GenerationRequest, outcome: Outcome) -> None:
        self._logger.info("%r ended: %s", generation, outcome.finish_reason.value)
        if self._callback is not None:
            with self._app.app_context():
                self._callback(self._request, message_of(generation, outcome))

    def close(self) -> None:
        """The conversation is free for its next turn. Idempotent."""
        self._on_close()
        self._turn.close()


def message_of(generation: GenerationRequest, outcome: Outcome) -> str:
    """The word that ChatStream's callbacks get."""
    if outcome.is_success:
        return SUCCESS
    if outcome.finish_reason is FinishReason.DISCONNECTED:
        return DISCONNECTED_WHILE_STREAMING if generation.text else DISCONNECTED_BEFORE_STREAMING
    return UNKNOWN_ERROR
