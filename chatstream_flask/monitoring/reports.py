"""What is told of each request once it is over, to the log and to a trace."""

from __future__ import annotations

from flask import request

from ..engine.request import GenerationRequest, Outcome
from ..errors import ChatStreamError
from .access_log import AccessLog
from .origin import Origin
from .tracing import trace_ended


class Reports:
    """Of one app. Every view that lets requests in calls these two."""

    def __init__(self, access_log: AccessLog) -> None:
        self._access_log = access_log

    def refused(self, error: ChatStreamError, status: int) -> None:
        """Within the request."""
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
    ) -> None:
        """Later, in any thread: `origin` is taken within the request, `session` is the conversation's id."""
        session = None if session is None else self._access_log.hash_of(session)
        self._access_log.ended(
            origin,
            generation,
            outcome,
            session=session,
            num_dropped_turns=num_dropped_turns,
            user_input=user_input,
        )
        trace_ended(
            origin.parent,
            generation,
            outcome,
            request_id=origin.request_id,
            session=session,
            operation="text_completion" if origin.route.endswith("/v1/completions") else "chat",
        )
