"""Values in JSON files, one for each key: the back end of sessions and conversations in files."""

from __future__ import annotations

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
from pathlib import Path
from typing import Any, NamedTuple

from cachelib.base import BaseCache
from cachelib.file import FileSystemCache

from .expiry_clock import ExpiryClock
from .retention import log_exceeding

logger = logging.getLogger("chatstream_flask")

HEADER_LEN = 4  # bytes of an entry before its text: when it expires
PROBE_LEN = 65_536  # bytes that must be free on the disk for a reply to be generated
DAMAGE = (struct.error, ValueError, RecursionError)  # what reading a damaged file raises
REFRESH_SEC = 60  # a session that is only read is written at most this often
DAMAGED_SUFFIX = ".damaged"
MAX_DAMAGED = 100  # files that are kept aside; the oldest go first
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


def aside(path: str) -> str:
    """Return a new name for a damaged file, or for a part of it."""
    return f"{path}.{time.time_ns()}{DAMAGED_SUFFIX}"


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
        self._replace(self._get_filename(key), self._header(timeout) + json.dumps(value).encode())
        return True

    def _replace(self, path: str, content: bytes) -> None:
        handle, name = tempfile.mkstemp(suffix=self._fs_transaction_suffix, dir=self._path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if self._is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            with self._changing:
                os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        if self._is_synced:
            self._sync_names()

    def _read(self, path: str) -> Any:
        """Return the value in a file; None if it has expired."""
        with open(path, "rb") as file:
            (expires_at,) = struct.unpack("I", file.read(4))  # seconds since 1970; 0: never expires
            return json.load(file) if not expires_at or expires_at >= self._clock.earliest() else None

    def _header(self, timeout: Any) -> bytes:
        return struct.pack("I", self._normalize_timeout(timeout))

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
                self._move_aside(path, error)

    def _move_aside(self, path: str, reason: object) -> None:
        kept = aside(path)
        os.rename(path, kept)
        logger.error(
            "a session or conversation file is damaged, was moved to %s and begins anew: %s", kept, reason
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
        """Yield what is stored, with pauses; delete unfinished files of dead processes, and old damaged."""
        damaged = []
        with os.scandir(self._path) as files:
            for number, file in enumerate(files, 1):
                if number % FILES_AT_ONCE == 0:
                    time.sleep(PAUSE_SEC)  # lets the threads that generate run
                with suppress(OSError, struct.error):
                    if NAME.fullmatch(file.name):
                        yield Entry.read(file.path)
                    elif file.name.endswith(DAMAGED_SUFFIX):
                        damaged.append((file.stat().st_mtime_ns, file.path))
                    elif self._is_abandoned(file):
                        os.remove(file.path)
        for _, path in sorted(damaged)[:-MAX_DAMAGED]:
            with suppress(OSError):
                os.remove(path)

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
