"""Limits that a server needs for the chats of an app, so that only the engine's queue makes requests wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Flask

from ..chat.app_state import EXTENSION, AppState
from ..chat.service import ChatService
from ..conversation import FileStore
from ..conversation.sweeper import Sweeper
from ..engine.engine import Engine
from ..errors import ConfigError
from ..http.server_check import num_server_threads

MAX_HEAD_SEC = 20.0  # time for the head of a request, and for the first byte of a new connection
OTHER_FILES = 128  # that a process opens beside its connections and one for each thread
SPARE_CONNECTIONS = 500  # idle keep-alive connections, refused requests, other pages
SWITCH_SEC = 0.001  # for sys.setswitchinterval; lets other threads get the GIL sooner


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """Limits of a server for all its chats together."""

    engines: list[Engine]
    num_threads: int  # one per running or waiting reply and further reader, plus spare ones
    max_connections: int
    max_body_len: int  # bytes
    client_timeout_sec: float
    drain_sec: float
    sweepers: list[Sweeper]

    @classmethod
    def from_app(cls, wsgi_app: Any) -> ServerLimits:
        """Return the limits for an app.

        :param wsgi_app: a Flask app with a ChatStream, or middleware around such apps
        :raises ConfigError: there is no ChatStream
        """
        chats = list(chat_states(wsgi_app))
        if not chats:
            raise ConfigError(f"{wsgi_app!r} has no ChatStream: call ChatStream(...).init_app(app)")
        engines = list({id(engine): engine for engine in (service.engine for service, _ in chats)}.values())
        num_threads = num_server_threads(engine.config for engine in engines)
        return cls(
            engines=engines,
            num_threads=num_threads,
            max_connections=num_threads + SPARE_CONNECTIONS,
            max_body_len=max(state.settings.max_body_len for _, state in chats),
            client_timeout_sec=max(state.settings.client_timeout_sec for _, state in chats),
            drain_sec=max(state.settings.drain_sec for _, state in chats),
            sweepers=[state.sweeper for _, state in chats],
        )


def head_timeout(client_timeout_sec: float) -> float:
    """Return the seconds in which the head of a request must arrive, at most the client timeout."""
    return min(MAX_HEAD_SEC, client_timeout_sec)


def allow_connections(limits: ServerLimits, wanted: int) -> int:
    """Raise the process's limit on open files for `wanted` connections; return how many it can have.

    Without a free file nothing works: no conversation could be read, no log be written.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    others = limits.num_threads + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted + others:
        is_bounded = hard != resource.RLIM_INFINITY
        soft = min(wanted + others, hard) if is_bounded else wanted + others
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(wanted, soft - others), limits.num_threads)


def claim_stores(wsgi_app: Any) -> None:
    """Lock the folders in which the conversations of an app are kept for this process.

    :raises FolderInUse: another process uses one of them
    :raises ConfigError: one of them cannot be written
    """
    for _, state in chat_states(wsgi_app):
        if isinstance(state.store, FileStore):
            try:
                state.store.claim()
            except OSError as error:
                raise ConfigError(f"conversations cannot be stored: {error}") from error


def chat_states(wsgi_app: Any) -> Iterator[tuple[ChatService, AppState]]:
    """Yield the chats of all apps, also of those inside middleware (`app`, `wsgi_app`, `mounts`)."""
    seen: set[int] = set()
    left = [wsgi_app]
    while left:
        app = left.pop()
        app = getattr(app, "__self__", app)  # Flask's own wsgi_app is a bound method
        if id(app) in seen:
            continue
        seen.add(id(app))
        if isinstance(app, Flask) and EXTENSION in app.extensions:
            yield from app.extensions[EXTENSION].items()
        left += [inner for name in ("app", "wsgi_app") if callable(inner := getattr(app, name, None))]
        left += getattr(app, "mounts", {}).values()
