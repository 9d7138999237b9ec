"""One accepted request: its turn of a conversation, its generation, and what follows at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flask import Flask, Request

from .config import OnBusy
from .conversation import ConversationStore, Lease
from .conversation.turn import Turn
from .engine.request import FinishReason, GenerationRequest, Outcome
from .errors import ConversationBusy

SUCCESS = "success"
DISCONNECTED_BEFORE_STREAMING = "client_disconnected_before_streaming"
DISCONNECTED_WHILE_STREAMING = "client_disconnected_while_streaming"
UNKNOWN_ERROR = "unknown_error_occurred"

BUSY_POLL_SEC = 0.05

Callback = Callable[[Request, str], None]


class Replies:
    """The replies in the making, by conversation; shared by all threads of one process."""

    def __init__(self) -> None:
        self._running: dict[str, GenerationRequest] = {}
        self._lock = threading.Lock()  # guards everything above

    def get(self, conversation_id: str) -> GenerationRequest | None:
        return self._running.get(conversation_id)

    def add(self, conversation_id: str, generation: GenerationRequest) -> None:
        with self._lock:
            self._running[conversation_id] = generation

    def remove(self, conversation_id: str, generation: GenerationRequest) -> None:
        with self._lock:
            if self._running.get(conversation_id) is generation:
                del self._running[conversation_id]


class Reply:
    """The hooks of a generation, in the order in which they are called."""

    def __init__(
        self,
        app: Flask,
        request: Request,
        turn: Turn,
        on_end: Callable[[GenerationRequest], None],
        callback: Callback | None,
        logger: logging.Logger,
    ) -> None:
        self._app = app
        self._request = request
        self._turn = turn
        self._on_end = on_end
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
            self._on_end(generation)
            self._turn.close()

    def tell(self, generation: GenerationRequest, outcome: Outcome) -> None:
        self._logger.info("%r ended: %s", generation, outcome.finish_reason.value)
        if self._callback is not None:
            with self._app.app_context():
                self._callback(self._request, message_of(generation, outcome))


def message_of(generation: GenerationRequest, outcome: Outcome) -> str:
    """The word that ChatStream's callbacks get."""
    if outcome.is_success:
        return SUCCESS
    if outcome.finish_reason is FinishReason.DISCONNECTED:
        return DISCONNECTED_WHILE_STREAMING if generation.text else DISCONNECTED_BEFORE_STREAMING
    return UNKNOWN_ERROR


def hold(
    store: ConversationStore,
    conversation_id: str,
    on_busy: OnBusy,
    *,
    stop_running: Callable[[], None],
    is_gone: Callable[[], bool],
    timeout_sec: float,
) -> Lease:
    """The conversation's lease; waits for it where `on_busy` says so and the client is still there."""
    deadline = time.monotonic() + timeout_sec
    while True:
        try:
            return store.hold(conversation_id)
        except ConversationBusy:
            if on_busy is OnBusy.REJECT or is_gone() or time.monotonic() >= deadline:
                raise
        if on_busy is OnBusy.REPLACE:
            stop_running()
        time.sleep(BUSY_POLL_SEC)
