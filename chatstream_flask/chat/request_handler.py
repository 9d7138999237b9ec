"""Which conversation a request belongs to, and where it is kept: the part an app may replace."""

from __future__ import annotations

import ipaddress
import secrets
from abc import ABC, abstractmethod

from flask import Request, current_app, session

from ..conversation import ConversationStore
from .app_state import store_of

SESSION_KEY = "chatstream_conversation"
IS_NEW = "chatstream.is_new_session"  # in the environ: the client has not shown that it keeps its cookie


class AbstractRequestHandler(ABC):
    """Called in the view, inside the request's context, before the response starts."""

    shares_conversations: bool = False
    """Whether several ChatStreams of an app that have this handler continue the same conversations.

    If False, each ChatStream has its own conversation for an id. If True, ids are the keys of the store in
    every one of them, which is also needed where the app itself makes conversations in the store.
    """

    def get_request_handler_type(self) -> str:
        """Return a short name of this handler, for logs."""
        return type(self).__name__

    @abstractmethod
    def get_conversation_id(self, request: Request) -> str:
        """The id of the caller's conversation, one that only this caller can name; made if there is none.

        May raise a ChatStreamError to refuse the request.
        """

    def get_visitor(self, request: Request) -> str | None:
        """Who the limits per visitor count for; None: nobody, without limits. Called before anything else.

        By default the client's address (behind a proxy only with werkzeug's ProxyFix).
        """
        return address_of(request)

    def get_priority(self, request: Request) -> int:
        """Higher ones are served first, but not for ever."""
        return 0

    def get_store(self) -> ConversationStore:
        """Where conversations are kept; by default the store that `init_app` made for this app."""
        return store_of(current_app)


class SimpleSessionRequestHandler(AbstractRequestHandler):
    """One conversation for each Flask session, which carries only its id.

    The visitor is the session, but the address for a client that brought none: one that keeps no cookies
    gets a new session with every request.
    """

    def get_request_handler_type(self) -> str:
        return "http_session"

    def get_conversation_id(self, request: Request) -> str:
        if SESSION_KEY not in session:
            session[SESSION_KEY] = secrets.token_urlsafe(24)
            request.environ[IS_NEW] = True
        conversation_id: str = session[SESSION_KEY]
        return conversation_id

    def get_visitor(self, request: Request) -> str | None:
        if SESSION_KEY in session and not request.environ.get(IS_NEW):
            return f"session:{session[SESSION_KEY]}"
        return super().get_visitor(request)


def address_of(request: Request) -> str | None:
    """The address as a visitor's name; of IPv6 its network, which one customer has. None on a Unix socket."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return None
    if address.version == 6:
        address = address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False)[0]
    return f"address:{address}"
