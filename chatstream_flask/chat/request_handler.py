"""Request handlers: they name the conversation and the visitor of a request; an app may have its own."""

from __future__ import annotations

import ipaddress
import secrets
from abc import ABC, abstractmethod

from flask import Request, current_app, session

from ..conversation import ConversationStore
from .app_state import store_of

SESSION_KEY = "chatstream_conversation"
IS_NEW = "chatstream.is_new_session"  # in the environ of a request that brought no session cookie


class AbstractRequestHandler(ABC):
    """Base class of request handlers.

    Its methods are called in the view, in the context of the request, before the response starts.
    """

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
        """Return the id of the caller's conversation, or a new one; no other caller may be able to name it.

        :raises ChatStreamError: to refuse the request
        """

    def get_visitor(self, request: Request) -> str | None:
        """Return the visitor that the limits per visitor count for; None applies no limits.

        It is called before any other method. The default is the client's address, which behind a proxy
        needs werkzeug's ProxyFix.
        """
        return address_of(request)

    def get_priority(self, request: Request) -> int:
        """Return the priority in the queue; higher ones are served first, but lower ones do not starve."""
        return 0

    def get_store(self) -> ConversationStore:
        """Return the store of conversations; the default is the one that `init_app` made for this app."""
        return store_of(current_app)


class SimpleSessionRequestHandler(AbstractRequestHandler):
    """One conversation for each Flask session; the session holds only its id.

    The visitor is the session. For a client without one it is the address, because a client that keeps no
    cookies gets a new session with every request.
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
    """Return the client's address as the name of a visitor, or None on a Unix socket.

    Of an IPv6 address only the /64 network counts, as one customer has all of it.
    """
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return None
    if address.version == 6:
        address = address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False)[0]
    return f"address:{address}"
