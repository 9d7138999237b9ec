"""Store in JSON files beside the sessions, which one process at a time may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from ..errors import ConfigError, StoreUnavailable
from .file_sessions import FileSessionInterface
from .flask_session_store import KEY_PREFIX, UNAVAILABLE
from .folder_lock import FolderLock, lock_folder
from .local_leases import LocalLease, LocalLeases
from .record_lines import DamagedLines, Line, RecordLines
from .store import Lease

FORMER_START = b'{"chat_prompt":'  # of a file that version 0.9 wrote


class FileStore:
    """Conversation store in the folder of a `FileSessionInterface`, a file for each conversation.

    A turn is appended to its file. An end of a file that cannot be read, as a process that was killed may
    leave it, is moved aside; it is of a turn that no client has seen the end of.
    """

    def __init__(self, app: Flask, interface: FileSessionInterface) -> None:
        self._app = app
        self._interface = interface
        self._cache = interface.cache
        self._leases = LocalLeases(self)
        self._lock: FolderLock | None = None

    def __repr__(self) -> str:
        return f"<FileStore {self._leases!r}>"

    @property
    def ttl_sec(self) -> float:
        """Seconds after its last turn for which a conversation is kept."""
        return self._app.permanent_session_lifetime.total_seconds()

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        return self._read(conversation_id, RecordLines())

    def hold(self, conversation_id: str) -> Lease:
        """Return a lease.

        No other process may write the folder, and there must be some room on the disk, so that no reply is
        generated in vain.
        """
        try:
            with _errors_translated():
                self.claim()
                self._cache.check_writable()
        except ConfigError as error:
            raise StoreUnavailable("another process uses the folder of the conversations") from error
        return self._leases.hold(conversation_id)

    def claim(self) -> None:
        """Lock the folder for this process.

        :raises FolderInUse: another process uses it
        :raises OSError: it cannot be written
        """
        if self._lock is None:
            self._lock = lock_folder(self._interface.directory)

    def delete(self, conversation_id: str) -> None:
        self._leases.revoke(conversation_id)
        with _errors_translated():
            self._cache.delete(KEY_PREFIX + conversation_id)

    def purge(self) -> int:
        """Delete expired files, and the least recently used ones beyond the limits; return how many.

        Sessions in the same folder are among them.
        """
        path_of = self._cache._get_filename
        return self._interface.purge(
            lambda path: any(path == path_of(KEY_PREFIX + held) for held in self._leases.held_ids)
        )

    # -- LeasedStore --------------------------------------------------------------------------------

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        return self._read(lease.conversation_id, lease.lines)

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        key = KEY_PREFIX + lease.conversation_id

        def write(line: Line) -> bool:
            self._cache.write_line(key, line, int(self.ttl_sec))
            return True

        with _errors_translated():
            lease.lines.store(record, write)

    def _read(self, conversation_id: str, known: RecordLines) -> dict[str, Any] | None:
        key = KEY_PREFIX + conversation_id
        with _errors_translated():
            while True:  # until what is damaged is out of the way
                lines = self._cache.read_lines(key)
                try:
                    return known.read(_unwrapped(lines))
                except DamagedLines as error:
                    self._cache.set_aside_lines(key, lines, error)


def _unwrapped(lines: list[bytes]) -> list[bytes]:
    """Return the lines without what earlier versions wrote around a record."""
    if lines and lines[0].startswith(FORMER_START):
        return [lines[0][len(FORMER_START) : -len(b"}")]]
    return lines


@contextmanager
def _errors_translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(UNAVAILABLE) from error
