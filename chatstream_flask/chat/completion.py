"""The end of a reply: its turn is saved, its conversation released, and the app notified."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flask import Flask, Request

from ..conversation.turn import Turn
from ..engine.finisher import not_stored
from ..engine.outcome import FinishReason, Outcome
from ..engine.request import GenerationRequest
from ..errors import (
    ConversationBusy,
    EngineUnavailable,
    HookFailed,
    InvalidRecord,
    Refused,
    StoreUnavailable,
)
from ..hooks.hooked_reply import HookedReply
from ..monitoring.origin import Origin
from ..monitoring.reports import Reports

logger = logging.getLogger("chatstream_flask")

SAVE_RETRY_SEC = 0.25  # pause before a reply that could not be stored is tried again

SUCCESS = "success"
DISCONNECTED_BEFORE_STREAMING = "client_disconnected_before_streaming"
DISCONNECTED_WHILE_STREAMING = "client_disconnected_while_streaming"
UNKNOWN_ERROR = "unknown_error_occurred"

SOUND = (EngineUnavailable, Refused, HookFailed)  # errors after which the text so far is kept

Callback = Callable[[Request, str], None]


class Completion:
    """Hooks for the end of one generation request: `keep`, then `tell`, each called once."""

    def __init__(
        self,
        app: Flask,
        request: Request,
        turn: Turn,
        hooked: HookedReply,
        on_close: Callable[[], None],
        callback: Callback | None,
        reports: Reports,
        conversation_id: str,
        save_retry_sec: float,
    ) -> None:
        """Make the hooks.

        :param save_retry_sec: seconds for which a reply that could not be stored is tried again
        """
        self._app = app
        self._request = request
        self._turn = turn
        self._hooked = hooked
        self._on_close = on_close
        self._callback = callback
        self._reports = reports
        self._conversation_id = conversation_id
        self._save_retry_sec = save_retry_sec
        self._origin = Origin.from_request(request)
        self.num_dropped_turns = 0  # set when the prompt has been fitted to the context

    def keep(self, generation: GenerationRequest, outcome: Outcome) -> Outcome:
        """Save the turn and release the conversation, before the client is told of the end.

        So the client's next turn finds this one saved and is not refused as busy.

        :returns: the outcome, which may be another one, as hooks of the app have a say
        :raises ConversationBusy: the turn could not be saved, as somebody else changed the conversation
        :raises StoreUnavailable: the turn could not be saved, as the store failed
        """
        try:
            outcome = self._hooked.finish(generation, outcome)
            answer, reasoning = self._hooked.texts()
            if outcome.is_success:
                if not self._save(generation, outcome):
                    raise ConversationBusy("the conversation was deleted or changed meanwhile")
            elif (answer or reasoning or self._hooked.steps) and _keeps_part(outcome):
                self._save(generation, outcome)
        except Exception as error:
            self._hooked.tell(not_stored(outcome, error))
            raise
        else:
            self._hooked.tell(outcome)
        finally:
            self.close()
        return outcome

    def tell(self, generation: GenerationRequest, outcome: Outcome) -> None:
        """Write the log line and the trace, and call the app's callback."""
        try:
            self._reports.ended(
                self._origin,
                generation,
                outcome,
                session=self._conversation_id,
                num_dropped_turns=self.num_dropped_turns,
                user_input=self._turn.prompt.get_requester_last_msg(),
                reply=self._hooked.texts()[0],
            )
        finally:
            if self._callback is not None:
                with self._app.app_context():
                    self._callback(self._request, message_of(generation, outcome))

    def _save(self, generation: GenerationRequest, outcome: Outcome) -> bool:
        """Save the turn; while the store fails, try again for some time, in which the client waits."""
        answer, reasoning = self._hooked.texts()
        deadline = time.monotonic() + self._save_retry_sec
        is_first_attempt = True
        while True:
            try:
                return self._turn.save(
                    answer,
                    reasoning=reasoning or None,
                    reasoning_sec=outcome.reasoning_sec,
                    is_interrupted=not outcome.is_success,
                    sources=self._hooked.context.sources,
                    steps=self._hooked.steps,
                )
            except StoreUnavailable as error:
                if isinstance(error, InvalidRecord) or time.monotonic() >= deadline:
                    raise
                if is_first_attempt:
                    logger.warning(
                        "the reply of %r could not be stored and is tried again for %g s: %s",
                        generation,
                        self._save_retry_sec,
                        error,
                    )
            is_first_attempt = False
            time.sleep(SAVE_RETRY_SEC)

    def close(self) -> None:
        """Release the conversation for its next turn. Idempotent."""
        self._on_close()
        self._turn.close()


def _keeps_part(outcome: Outcome) -> bool:
    """Return whether the part of a reply that was interrupted is sound."""
    return outcome.finish_reason is not FinishReason.ERROR or outcome.error_class in SOUND


def message_of(generation: GenerationRequest, outcome: Outcome) -> str:
    """Return the word with which ChatStream's callbacks are told how a reply ended."""
    if outcome.is_success:
        return SUCCESS
    if outcome.finish_reason is FinishReason.DISCONNECTED:
        return DISCONNECTED_WHILE_STREAMING if generation.text else DISCONNECTED_BEFORE_STREAMING
    return UNKNOWN_ERROR
