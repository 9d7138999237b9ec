"""Reports of ended and refused requests, to the access log and to the trace."""

from __future__ import annotations

from flask import request

from ..engine.outcome import Outcome
from ..engine.request import GenerationRequest
from ..errors import ChatStreamError
from .access_log import AccessLog
from .origin import Origin
from .tracing import record_span


class Reports:
    """Reports of one app; every view that accepts generation requests calls these two methods."""

    def __init__(self, access_log: AccessLog) -> None:
        self._access_log = access_log

    def refused(self, error: ChatStreamError, status: int) -> None:
        """Report that the current request was refused."""
        self._access_log.refused(Origin.from_request(request), error, status)

    def ended(
        self,
        origin: Origin,
        generation: GenerationRequest,
        outcome: Outcome,
        *,
        session: str | None = None,
        num_dropped_turns: int = 0,
        user_input: str | None = None,
        reply: str,
    ) -> None:
        """Report the end of a reply; may be called in any thread, after the HTTP request is over.

        :param origin: made while the request was being handled
        :param session: the conversation's id
        :param reply: the answer as clients got it
        """
        session = None if session is None else self._access_log.hash_session(session)
        self._access_log.ended(
            origin,
            generation,
            outcome,
            session=session,
            num_dropped_turns=num_dropped_turns,
            user_input=user_input,
            reply=reply,
        )
        record_span(
            origin.parent,
            generation,
            outcome,
            request_id=origin.request_id,
            session=session,
            operation="text_completion" if origin.route.endswith("/v1/completions") else "chat",
        )
