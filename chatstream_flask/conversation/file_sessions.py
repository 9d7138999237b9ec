"""Sessions in JSON files with Flask-Session: the default for apps without a server-side session."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from cachelib.file import FileSystemCache
from flask import Flask, Request
from flask_session.base import ServerSideSession
from flask_session.cachelib.cachelib import CacheLibSessionInterface

from ..errors import ConfigError

logger = logging.getLogger("chatstream_flask")

FLASK_COOKIE_NAME = "session"  # Flask's default of SESSION_COOKIE_NAME
REFRESH_SEC = 3600  # a session that is only read is written at most this often


class JSONFileCache(FileSystemCache):
    """Cache with one JSON file per key, replaced atomically.

    Write errors are raised; the base class only logs them.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), threshold=0)  # 0: never delete entries because there are many

    def get(self, key: str) -> Any:
        """Return the value; None if it does not exist, has expired or is damaged.

        A disk error is raised: it must not look like a missing value.
        """
        try:
            with open(self._get_filename(key), "rb") as file:
                (expires_at,) = struct.unpack("I", file.read(4))  # seconds since 1970; 0: never expires
                return json.load(file) if not expires_at or expires_at >= time.time() else None
        except FileNotFoundError:
            return None
        except (struct.error, ValueError) as error:
            logger.error("a session or conversation file is damaged and is replaced by a new one: %s", error)
            return None

    def set(self, key: str, value: Any, timeout: Any = None, mgmt_element: bool = False) -> bool:
        content = struct.pack("I", self._normalize_timeout(timeout)) + json.dumps(value).encode()
        handle, name = tempfile.mkstemp(suffix=self._fs_transaction_suffix, dir=self._path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, self._get_filename(key))
        except BaseException:
            os.unlink(name)
            raise
        return True

    def postpone(self, key: str, timeout: int) -> None:
        """Let an entry expire `timeout` seconds from now, to within an hour; its value is not written.

        A disk error is not raised: the entry then expires at its earlier time.
        """
        latest = self._normalize_timeout(timeout)
        with suppress(OSError, struct.error), open(self._get_filename(key), "r+b") as file:
            (expires_at,) = struct.unpack("I", file.read(4))
            if expires_at and expires_at <= latest - min(REFRESH_SEC, timeout / 2):
                file.seek(0)
                file.write(struct.pack("I", latest))

    def purge(self) -> int:
        """Delete expired files; return how many."""
        num_removed = 0
        for name in self._list_dir():
            with suppress(OSError, struct.error), open(name, "rb") as file:
                (expires_at,) = struct.unpack("I", file.read(4))
                if expires_at and expires_at < time.time():
                    os.remove(name)
                    num_removed += 1
        return num_removed

    def delete(self, key: str, mgmt_element: bool = False) -> bool:
        with suppress(FileNotFoundError):
            os.remove(self._get_filename(key))
        return True


class FileSessionInterface(CacheLibSessionInterface):
    """Sessions in JSON files, each named by a cookie.

    The name of the cookie is derived from the app and its folder, because browsers send a cookie to every
    app of a host, whatever its port: under one name, each app would replace the other's session.
    """

    cache: JSONFileCache

    def __init__(self, app: Flask, directory: Path) -> None:
        super().__init__(app, JSONFileCache(directory), permanent=False)
        digest = hashlib.sha256(f"{app.name}\0{directory.resolve()}".encode()).hexdigest()
        self.cookie_name = f"{FLASK_COOKIE_NAME}_{digest[:8]}"

    def open_session(self, app: Flask, request: Request) -> ServerSideSession:
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
        """Write a session that was changed; of one that was only read, only postpone the expiry.

        Written again, it would undo what a request at the same time has changed.
        """
        if session.modified:
            super()._upsert_session(lifetime, session, store_id)
        else:
            self.cache.postpone(store_id, int(lifetime.total_seconds()))


def file_session_interface(app: Flask, directory: str | os.PathLike[str] | None) -> FileSessionInterface:
    """Return a session interface that stores sessions in JSON files.

    :param directory: created if it does not exist; None is "chatstream" in the app's instance folder
    :raises ConfigError: the folder cannot be written
    """
    path = Path(directory or os.path.join(app.instance_path, "chatstream"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # fails if an existing folder is read-only
            pass
    except OSError as error:
        raise ConfigError(
            f"conversations cannot be stored in {path} ({error.strerror}); set CHATSTREAM_STORE_DIR to a "
            "folder that can be written"
        ) from error
    return FileSessionInterface(app, path)
