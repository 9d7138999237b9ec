"""What a ChatStream has of each Flask app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_session.base import ServerSideSessionInterface

from ..conversation import ConversationStore, FlaskSessionStore
from ..conversation.file_sessions import file_session_interface
from ..conversation.urls import make_store
from ..monitoring.reports import Reports
from ..settings import Settings
from .reply_registry import ReplyRegistry

if TYPE_CHECKING:
    from ..extension import ChatStream


@dataclass(frozen=True)
class AppState:
    """In `app.extensions["chatstream"]`."""

    chat_stream: ChatStream
    settings: Settings
    store: ConversationStore
    replies: ReplyRegistry
    reports: Reports


def make_conversation_store(app: Flask, settings: Settings) -> ConversationStore:
    """The store that CHATSTREAM_STORE names, else the back end of the app's sessions.

    An app with sessions of its own keeps them untouched; one without gets Flask-Session with embedded files.
    """
    interface = app.session_interface
    if isinstance(interface, ServerSideSessionInterface):
        sessions = interface
    elif type(interface) is SecureCookieSessionInterface and not app.secret_key:
        sessions = app.session_interface = file_session_interface(app, settings.store_dir)
        app.config["SESSION_COOKIE_SAMESITE"] = app.config["SESSION_COOKIE_SAMESITE"] or "Lax"
        app.config["SESSION_COOKIE_SECURE"] = settings.cookie_secure
    elif settings.store is None:
        sessions = file_session_interface(app, settings.store_dir)  # for conversations only
    if settings.store is not None:
        return make_store(settings.store, settings.store_ttl_sec, settings.store_lease_sec)
    return FlaskSessionStore(app, sessions)
