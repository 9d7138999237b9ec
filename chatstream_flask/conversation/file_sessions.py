"""Sessions in JSON files with Flask-Session: the default for apps without a server-side session."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from flask import Flask, Request, Response
from flask_session.base import ServerSideSession
from flask_session.cachelib.cachelib import CacheLibSession, CacheLibSessionInterface

from ..errors import ConfigError, StoreUnavailable
from ..http.problem import problem_response
from .line_file_cache import LineFileCache

logger = logging.getLogger("chatstream_flask")

FLASK_COOKIE_NAME = "session"  # Flask's default of SESSION_COOKIE_NAME


class UnavailableSession(CacheLibSession):
    """Session that cannot be read: requests that do not need it go on, others get status 503."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise StoreUnavailable("sessions cannot be read at the moment") from self._error

    __contains__ = __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = _refuse
    clear = copy = get = items = keys = pop = popitem = setdefault = update = values = _refuse


class FileSessionInterface(CacheLibSessionInterface):
    """Sessions in JSON files, each named by a cookie.

    The name of the cookie is derived from the app and its folder, because browsers send a cookie to every
    app of a host, whatever its port: under one name, each app would replace the other's session.
    """

    cache: LineFileCache

    def __init__(self, app: Flask, directory: Path, cache: LineFileCache) -> None:
        super().__init__(app, cache, permanent=False)
        self.directory = directory
        digest = hashlib.sha256(f"{app.name}\0{directory.resolve()}".encode()).hexdigest()
        self.cookie_name = f"{FLASK_COOKIE_NAME}_{digest[:8]}"

    def open_session(self, app: Flask, request: Request) -> ServerSideSession:
        """Open the session of the cookie; if the disk fails, one that raises an error when used."""
        try:
            return self._open_session(app, request)
        except OSError as error:
            return UnavailableSession(error)

    def save_session(  # type: ignore[override]  # as Flask-Session has it
        self, app: Flask, session: ServerSideSession, response: Response
    ) -> None:
        """Save a session that was changed; if the disk fails, the response becomes a refusal."""
        if isinstance(session, UnavailableSession):
            return
        try:
            super().save_session(app, session, response)
        except OSError as error:
            logger.error("a session could not be written: %s", error)
            refusal = problem_response(StoreUnavailable("sessions cannot be written at the moment"))
            response.close()
            response.response, response.headers = refusal.response, refusal.headers
            response.status_code = refusal.status_code

    def _open_session(self, app: Flask, request: Request) -> ServerSideSession:
        """Open the session of the cookie, else one of an older version, whose cookie had Flask's own name."""
        former_id = request.cookies.get(FLASK_COOKIE_NAME)
        if former_id and app.config["SESSION_COOKIE_NAME"] not in request.cookies:
            data = self._retrieve_session_data(self._get_store_id(former_id))
            if data is not None:
                session = self.session_class(data, sid=former_id)
                session.modified = True  # sets the cookie of today's name
                return session
        return super().open_session(app, request)

    def _upsert_session(self, lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        """Write a session that was changed; for one that was only read, only postpone its expiry.

        Written again, it would undo what a request at the same time has changed.
        """
        if session.modified:
            super()._upsert_session(lifetime, session, store_id)
        else:
            self.cache.postpone(store_id, int(lifetime.total_seconds()))

    def purge(self, is_in_use: Callable[[str], bool] = lambda path: False) -> int:
        """Delete what has expired or exceeds the limits; see `JSONFileCache.purge`.

        :raises StoreUnavailable: the folder cannot be read
        """
        try:
            return self.cache.purge(is_in_use)
        except OSError as error:
            raise StoreUnavailable(f"the folder of the sessions cannot be read: {error.strerror}") from error


def session_folder(app: Flask, directory: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the files; None is "chatstream" in the app's instance folder."""
    return Path(directory or os.path.join(app.instance_path, "chatstream"))


def make_session_folder(app: Flask, directory: str | os.PathLike[str] | None) -> Path:
    """Create the folder of the files unless it exists, and return it.

    :raises ConfigError: it cannot be written
    """
    path = session_folder(app, directory)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # fails if an existing folder is read-only
            pass
    except OSError as error:
        raise ConfigError(
            f"conversations cannot be stored in {path} ({error.strerror}); set CHATSTREAM_STORE_DIR to a "
            "folder that can be written"
        ) from error
    return path


def file_session_interface(
    app: Flask,
    directory: str | os.PathLike[str] | None,
    max_conversations: int | None = None,
    max_bytes: int | None = None,
    *,
    is_synced: bool = True,
) -> FileSessionInterface:
    """Return a session interface that stores sessions in JSON files.

    :param directory: created if it does not exist; None is "chatstream" in the app's instance folder
    :param max_conversations: conversations to keep, each with its session and a list; None: no limit
    :param max_bytes: size of all files to keep; None: no limit
    :param is_synced: whether what is written is on the disk at once
    :raises ConfigError: the folder cannot be written
    """
    path = make_session_folder(app, directory)
    max_files = None if max_conversations is None else 3 * max_conversations
    return FileSessionInterface(app, path, LineFileCache(path, max_files, max_bytes, is_synced=is_synced))
