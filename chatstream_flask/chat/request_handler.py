"""Request handlers: they name the conversation and the visitor of a request; an app may have its own."""

from __future__ import annotations

import ipaddress
import secrets
from abc import ABC, abstractmethod

from flask import Request, current_app, session

from ..conversation import ConversationStore
from ..conversation.conversation_index import ANONYMOUS
from .app_state import store_of

SESSION_KEY = "chatstream_conversation"
NEW_ID = "chatstream.new_conversation_id"  # in the environ of a request whose session has no conversation


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

        It is also called for requests that only read or are refused, so it stores nothing.

        :raises ChatStreamError: to refuse the request
        """

    def keep_conversation_id(self, request: Request) -> None:  # noqa: B027 - not every handler needs it
        """Let the caller's later requests find the conversation that `get_conversation_id` has named.

        It is called when a message or a setting has been accepted, before the response starts. The default
        does nothing, for ids that come with every request.
        """

    def get_owner(self, request: Request) -> str | None:
        """Return whose list of conversations the caller has, such as `str(user.id)`; None: no list.

        A request with `?conversation_id=` means a conversation of this list. An owner that begins with
        "session:" is a session without a login.
        """
        return None

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
    """Conversations of each Flask session; the session holds only the id of its first one.

    The first message that is accepted puts the id into the session; reading and refused requests leave the
    session as it is. Override `get_owner` for users who log in: their conversations are theirs alone, in
    whatever session. A subclass that names conversations itself has no lists, unless it names their owner,
    too. The visitor is the session. For a client without one it is the address, because a
    client that keeps no cookies begins a new session with every message.
    """

    def get_request_handler_type(self) -> str:
        return "http_session"

    def get_conversation_id(self, request: Request) -> str:
        return self._id_in_session(request, self._session_key(request))

    def keep_conversation_id(self, request: Request) -> None:
        if NEW_ID in request.environ:
            session.setdefault(self._session_key(request), request.environ[NEW_ID])

    def get_owner(self, request: Request) -> str | None:
        if type(self).get_conversation_id is not SimpleSessionRequestHandler.get_conversation_id:
            return None
        return ANONYMOUS + self._id_in_session(request, SESSION_KEY)

    def _id_in_session(self, request: Request, key: str) -> str:
        conversation_id: str = (
            session[key] if key in session else request.environ.setdefault(NEW_ID, secrets.token_urlsafe(24))
        )
        return conversation_id

    def _session_key(self, request: Request) -> str:
        """Return the key of the caller's first conversation; each user who logs in has one of their own."""
        if type(self).get_owner is SimpleSessionRequestHandler.get_owner:
            return SESSION_KEY
        owner = self.get_owner(request)
        is_anonymous = owner is None or owner.startswith(ANONYMOUS)
        return SESSION_KEY if is_anonymous else f"{SESSION_KEY}:{owner}"

    def get_visitor(self, request: Request) -> str | None:
        if SESSION_KEY in session:
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
