"""Sessions in JSON files with Flask-Session: the default for apps without a server-side session."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cachelib.base import BaseCache
from cachelib.file import FileSystemCache
from flask import Flask, Request, Response
from flask_session.base import ServerSideSession
from flask_session.cachelib.cachelib import CacheLibSession, CacheLibSessionInterface

from ..errors import ConfigError, StoreUnavailable
from ..http.problem import problem_response
from .expiry_clock import ExpiryClock
from .retention import log_exceeding

logger = logging.getLogger("chatstream_flask")

FLASK_COOKIE_NAME = "session"  # Flask's default of SESSION_COOKIE_NAME
PROBE_LEN = 65_536  # bytes that must be free on the disk for a reply to be generated
DAMAGE = (struct.error, ValueError, RecursionError)  # what reading a damaged file raises
REFRESH_SEC = 60  # a session that is only read is written at most this often
ABANDONED_SEC = 3600  # a file that is not finished by then was left by a process that died
FILES_AT_ONCE, PAUSE_SEC = 200, 0.01  # of a purge
NEVER = 2**32  # time of expiry of an entry that stays, later than all others
NAME = re.compile("[0-9a-f]{64}")  # of an entry: the SHA-256 of its key


class Entry(NamedTuple):
    """A file of a JSONFileCache."""

    expires_at: int  # seconds since 1970
    written_at: int  # nanoseconds since 1970
    num_bytes: int
    path: str

    @classmethod
    def read(cls, path: str) -> Entry:
        with open(path, "rb") as file:
            (expires_at,) = struct.unpack("I", file.read(4))
            stat = os.fstat(file.fileno())
            return cls(expires_at or NEVER, stat.st_mtime_ns, stat.st_size, path)


class JSONFileCache(FileSystemCache):
    """Cache with one JSON file per key, replaced atomically.

    Write errors are raised; the base class only logs them. The limits hold after each `purge`.

    :param max_files: files to keep; None: no limit
    :param max_bytes: size of all files to keep; None: no limit
    :param is_synced: whether a value is on the disk, and not only in the system's memory, when `set` returns
    """

    def __init__(
        self,
        directory: Path,
        max_files: int | None = None,
        max_bytes: int | None = None,
        *,
        is_synced: bool = True,
        clock: ExpiryClock | None = None,
    ) -> None:
        super().__init__(str(directory), threshold=0)  # 0: the base class itself deletes nothing
        self._max_files = math.inf if max_files is None else max_files
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        self._is_synced = is_synced
        self._clock = clock or ExpiryClock()
        self._changing = threading.Lock()  # an entry is replaced, or checked and deleted

    def get(self, key: str) -> Any:
        """Return the value; None if it does not exist or has expired.

        A damaged file is moved aside, where nothing overwrites it, and the value is None. A disk error is
        raised: it must not look like a missing value.
        """
        path = self._get_filename(key)
        try:
            return self._read(path)
        except FileNotFoundError:
            return None
        except DAMAGE:
            self._set_aside(path)
            return None

    def set(self, key: str, value: Any, timeout: Any = None, mgmt_element: bool = False) -> bool:
        content = struct.pack("I", self._normalize_timeout(timeout)) + json.dumps(value).encode()
        handle, name = tempfile.mkstemp(suffix=self._fs_transaction_suffix, dir=self._path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if self._is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            with self._changing:
                os.replace(name, self._get_filename(key))
        except BaseException:
            os.unlink(name)
            raise
        if self._is_synced:
            self._sync_names()
        return True

    def _read(self, path: str) -> Any:
        """Return the value in a file; None if it has expired."""
        with open(path, "rb") as file:
            (expires_at,) = struct.unpack("I", file.read(4))  # seconds since 1970; 0: never expires
            return json.load(file) if not expires_at or expires_at >= self._clock.earliest() else None

    def _normalize_timeout(self, timeout: Any) -> int:
        """Return the time of expiry in seconds since 1970; 0 for one that never expires."""
        seconds = BaseCache._normalize_timeout(self, timeout)
        return seconds and int(self._clock.latest()) + seconds

    def check_writable(self) -> None:
        """Raise OSError unless a short conversation can be written."""
        with tempfile.TemporaryFile(dir=self._path) as file:
            file.write(bytes(PROBE_LEN))

    def _sync_names(self) -> None:
        """Write the names of the files to the disk, so that a new one is found after a power failure."""
        if hasattr(os, "O_DIRECTORY"):  # not on Windows
            directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _set_aside(self, path: str) -> None:
        with self._changing:
            try:
                self._read(path)
            except FileNotFoundError:
                pass  # another thread was quicker
            except DAMAGE as error:
                kept = f"{path}.{time.time_ns()}.damaged"
                os.rename(path, kept)
                logger.error(
                    "a session or conversation file is damaged, was moved to %s and begins anew: %s",
                    kept,
                    error,
                )

    def postpone(self, key: str, timeout: int) -> None:
        """Let an entry expire `timeout` seconds from now, to within a minute; its value is not written.

        A disk error is not raised: the entry then expires at its earlier time.
        """
        latest = self._normalize_timeout(timeout)
        path = self._get_filename(key)
        with suppress(OSError, struct.error), self._changing, open(path, "r+b") as file:
            (expires_at,) = struct.unpack("I", file.read(4))
            if expires_at and expires_at <= latest - min(REFRESH_SEC, timeout / 2):
                file.seek(0)
                file.write(struct.pack("I", latest))

    def purge(self, is_in_use: Callable[[str], bool] = lambda path: False) -> int:
        """Delete expired files, and the least recently used ones beyond the limits; return how many.

        :param is_in_use: called with the path of a file; True keeps it
        """
        num_expired = 0
        kept = []
        for entry in self._entries():
            if entry.expires_at < self._clock.earliest() and self._delete(entry, is_in_use):
                num_expired += 1
            else:
                kept.append(entry)
        num_exceeding = self._delete_exceeding(kept, is_in_use)
        log_exceeding(num_exceeding)
        return num_expired + num_exceeding

    def _delete_exceeding(self, kept: list[Entry], is_in_use: Callable[[str], bool]) -> int:
        num_files, num_bytes = len(kept), sum(entry.num_bytes for entry in kept)
        if num_files <= self._max_files and num_bytes <= self._max_bytes:
            return 0
        for entry in sorted(kept):  # all live equally long: the first to expire is the least recently used
            if num_files <= self._max_files and num_bytes <= self._max_bytes:
                break
            if self._delete(entry, is_in_use):
                num_files -= 1
                num_bytes -= entry.num_bytes
        return len(kept) - num_files

    def _entries(self) -> Iterator[Entry]:
        """Yield what is stored, with pauses; delete what a process that died was writing."""
        with os.scandir(self._path) as files:
            for number, file in enumerate(files, 1):
                if number % FILES_AT_ONCE == 0:
                    time.sleep(PAUSE_SEC)  # lets the threads that generate run
                with suppress(OSError, struct.error):
                    if NAME.fullmatch(file.name):
                        yield Entry.read(file.path)
                    elif self._is_abandoned(file):
                        os.remove(file.path)

    def _is_abandoned(self, file: os.DirEntry[str]) -> bool:
        is_unfinished = file.name.endswith(self._fs_transaction_suffix)
        return is_unfinished and file.stat().st_mtime < time.time() - ABANDONED_SEC

    def _delete(self, entry: Entry, is_in_use: Callable[[str], bool]) -> bool:
        """Delete an entry that is not in use and has not been written since it was read."""
        with suppress(OSError, struct.error), self._changing:
            if not is_in_use(entry.path) and Entry.read(entry.path) == entry:
                os.remove(entry.path)
                return True
        return False

    def delete(self, key: str, mgmt_element: bool = False) -> bool:
        with suppress(FileNotFoundError):
            os.remove(self._get_filename(key))
        return True


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

    cache: JSONFileCache

    def __init__(self, app: Flask, directory: Path, cache: JSONFileCache) -> None:
        super().__init__(app, cache, permanent=False)
        self.directory = directory
        digest = hashlib.sha256(f"{app.name}\0{directory.resolve()}".encode()).hexdigest()
        self.cookie_name = f"{FLASK_COOKIE_NAME}_{digest[:8]}"

    def open_session(self, app: Flask, request: Request) -> ServerSideSession:
        """Open the session of the cookie; if the disk fails, one that only says so when it is used."""
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
        """Write a session that was changed; of one that was only read, only postpone the expiry.

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
    :param max_conversations: conversations to keep, each with its session; None: no limit
    :param max_bytes: size of all files to keep; None: no limit
    :param is_synced: whether what is written is on the disk at once
    :raises ConfigError: the folder cannot be written
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
    max_files = None if max_conversations is None else 2 * max_conversations
    return FileSessionInterface(app, path, JSONFileCache(path, max_files, max_bytes, is_synced=is_synced))
