"""What a ChatStream has of each Flask app."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_session.base import ServerSideSessionInterface

from .conversation import ConversationStore, FlaskSessionStore
from .conversation.file_sessions import file_session_interface
from .reply import Replies
from .settings import Settings

if TYPE_CHECKING:
    from .extension import ChatStream


@dataclass(frozen=True)
class AppState:
    """In `app.extensions["chatstream"]`."""

    chat_stream: ChatStream
    settings: Settings
    store: ConversationStore
    replies: Replies = field(default_factory=Replies)


def make_conversation_store(app: Flask, settings: Settings) -> ConversationStore:
    """The store that CHATSTREAM_STORE names, else the one of the app's sessions.

    An app with sessions of its own keeps them untouched; one without gets Flask-Session with embedded files.
    """
    from .conversation.urls import make_store

    interface = app.session_interface
    has_sessions = type(interface) is not SecureCookieSessionInterface or bool(app.secret_key)
    if has_sessions and settings.store is not None:
        return make_store(settings.store, settings.store_ttl_sec)
    if isinstance(interface, ServerSideSessionInterface):
        return FlaskSessionStore(app, interface)
    files = file_session_interface(app, settings.store_dir)
    if not has_sessions:
        app.session_interface = files
        app.config["SESSION_COOKIE_SAMESITE"] = app.config["SESSION_COOKIE_SAMESITE"] or "Lax"
        app.config["SESSION_COOKIE_SECURE"] = settings.cookie_secure
    if settings.store is not None:
        return make_store(settings.store, settings.store_ttl_sec)
    return FlaskSessionStore(app, files)
