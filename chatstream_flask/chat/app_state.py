"""What a ChatStream has for each Flask app.

It lives in the app and not in the ChatStream, so that an app that is no longer used can be collected: the
store and the session interface refer to the app.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_session.base import ServerSideSessionInterface

from ..conversation import ConversationStore, FileStore, FlaskSessionStore
from ..conversation.file_sessions import FLASK_COOKIE_NAME, FileSessionInterface, file_session_interface
from ..conversation.sweeper import Sweeper
from ..conversation.urls import make_store
from ..errors import ConfigError
from ..monitoring.reports import Reports
from ..nodes.lifetime import NODE_TTL_SEC
from ..settings import Settings
from .reply_registry import ReplyRegistry
from .set_up_order import SetUpOrder

EXTENSION = "chatstream"  # the key in app.extensions: a dict of ChatStreams, each with its AppState


@dataclass(frozen=True)
class AppState:
    """What a ChatStream has for one app."""

    settings: Settings
    store: ConversationStore
    sweeper: Sweeper
    replies: ReplyRegistry
    reports: Reports
    set_up_order: SetUpOrder


def state_of(app: Flask, service: object) -> AppState | None:
    """Return what `service` has for the app; None if it was not set up for it."""
    states: dict[object, AppState] = app.extensions.get(EXTENSION, {})
    return states.get(service)


def first_state_of(app: Flask) -> AppState | None:
    """Return the state of the app's first ChatStream; the others share its store and its sweeper."""
    states: dict[object, AppState] = app.extensions.get(EXTENSION, {})
    return next(iter(states.values()), None)


def store_of(app: Flask) -> ConversationStore:
    """Return the store of the app's conversations, which all of its ChatStreams share."""
    states: dict[object, AppState] = app.extensions[EXTENSION]
    return next(iter(states.values())).store


def purge(app: Flask, store: ConversationStore) -> int:
    """Delete what has expired or exceeds the limits: conversations, and sessions that we keep in files.

    :returns: how many
    :raises StoreUnavailable: the store or the folder of the sessions cannot be read or written
    """
    num_removed = store.purge()
    sessions = app.session_interface
    if isinstance(sessions, FileSessionInterface) and not isinstance(store, FileStore):
        num_removed += sessions.purge()
    return num_removed


def make_conversation_store(app: Flask, settings: Settings) -> ConversationStore:
    """Return the store that CHATSTREAM_STORE names, else one in the back end of the app's sessions.

    An app that has sessions keeps them unchanged. An app without gets Flask-Session with JSON files.

    :raises ConfigError: the store or the folder of the sessions cannot be used, or other servers that share
        visitors with this one cannot reach the sessions
    """
    interface = app.session_interface
    if isinstance(interface, ServerSideSessionInterface):
        sessions = interface
    elif type(interface) is SecureCookieSessionInterface and not app.secret_key:
        sessions = app.session_interface = _file_sessions(app, settings)
        if app.config["SESSION_COOKIE_NAME"] == FLASK_COOKIE_NAME:
            app.config["SESSION_COOKIE_NAME"] = sessions.cookie_name
        app.config["SESSION_COOKIE_SAMESITE"] = app.config["SESSION_COOKIE_SAMESITE"] or "Lax"
        app.config["SESSION_COOKIE_SECURE"] = settings.cookie_secure
    elif settings.store is None:
        sessions = _file_sessions(app, settings)  # only for the conversations
    is_shared = settings.shared_redis is not None
    if is_shared and isinstance(app.session_interface, FileSessionInterface):
        raise ConfigError(
            "with CHATSTREAM_SHARED_REDIS every server must know the sessions of the others: set SECRET_KEY "
            "to the same value in all of them, or use Flask-Session with a back end that all reach"
        )
    if settings.store is not None:
        return make_store(
            settings.store,
            settings.store_ttl_sec,
            min(settings.store_lease_sec, NODE_TTL_SEC) if is_shared else settings.store_lease_sec,
            settings.store_max_conversations,
            settings.store_max_bytes,
            is_synced=settings.store_fsync,
        )
    if isinstance(sessions, FileSessionInterface):
        return FileStore(app, sessions)
    return FlaskSessionStore(app, sessions)


def _file_sessions(app: Flask, settings: Settings) -> FileSessionInterface:
    return file_session_interface(
        app,
        settings.store_dir,
        settings.store_max_conversations,
        settings.store_max_bytes,
        is_synced=settings.store_fsync,
    )
