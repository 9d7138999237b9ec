"""Which conversation a request belongs to, and where it is kept: the part an app may replace."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

from flask import Request, current_app, session

from .conversation import ConversationStore

SESSION_KEY = "chatstream_conversation"


class AbstractRequestHandler(ABC):
    """Called in the view, inside the request's context, before the response starts."""

    @abstractmethod
    def get_request_handler_type(self) -> str:
        """A short name for logs."""

    @abstractmethod
    def get_conversation_id(self, request: Request) -> str:
        """The id of the caller's conversation, one that only this caller can name; made if there is none.

        May raise a ChatStreamError to refuse the request.
        """

    def get_store(self) -> ConversationStore:
        """Where conversations are kept; by default the store that `init_app` made for this app."""
        store: ConversationStore = current_app.extensions["chatstream"].store
        return store


class SimpleSessionRequestHandler(AbstractRequestHandler):
    """One conversation for each Flask session, which carries only its id."""

    def get_request_handler_type(self) -> str:
        return "http_session"

    def get_conversation_id(self, request: Request) -> str:
        if SESSION_KEY not in session:
            session[SESSION_KEY] = secrets.token_urlsafe(24)
        conversation_id: str = session[SESSION_KEY]
        return conversation_id
