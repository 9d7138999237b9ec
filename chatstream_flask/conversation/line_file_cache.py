"""Conversations in the files of a JSONFileCache: each as lines, to which a turn is appended."""

from __future__ import annotations

import io
import logging
import os
import struct

from .json_file_cache import HEADER_LEN, JSONFileCache, aside
from .record_lines import NEWLINE, DamagedLines, Line, LinesChanged

logger = logging.getLogger("chatstream_flask")


class LineFileCache(JSONFileCache):
    """JSONFileCache whose entries may also be the lines of a record."""

    def read_lines(self, key: str) -> list[bytes]:
        """Return the lines of an entry; none if it does not exist or has expired."""
        return self._lines_in(self._get_filename(key))

    def write_line(self, key: str, line: Line, timeout: int) -> None:
        """Append a line to an entry, or let it replace the entry.

        :raises LinesChanged: the entry does not have the lines that it continues
        """
        path = self._get_filename(key)
        if line.num_lines:
            self._append(path, line, self._header(timeout))
        else:
            self._replace(path, self._header(timeout) + line.text)

    def set_aside_lines(self, key: str, lines: list[bytes], error: DamagedLines) -> None:
        """Move the lines of an entry that cannot be read to a file of their own.

        Do nothing if the entry has been changed since it was read.
        """
        path = self._get_filename(key)
        with self._changing:
            if self._lines_in(path) != lines:
                return
            if not error.num_good:
                self._move_aside(path, error)
                return
            kept = aside(path)
            with open(kept, "xb", opener=_private) as file:
                file.write(NEWLINE.join(lines[error.num_good :]))
            os.truncate(path, HEADER_LEN + len(NEWLINE.join(lines[: error.num_good])))
            logger.error("the end of a conversation file is damaged and was moved to %s: %s", kept, error)

    def _lines_in(self, path: str) -> list[bytes]:
        try:
            with open(path, "rb") as file:
                header, content = file.read(HEADER_LEN), file.read()
        except FileNotFoundError:
            return []
        if len(header) == HEADER_LEN:
            (expires_at,) = struct.unpack("I", header)
            if expires_at and expires_at < self._clock.earliest():
                return []
        return content.split(NEWLINE)

    def _append(self, path: str, line: Line, header: bytes) -> None:
        try:
            with self._changing, open(path, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size != HEADER_LEN + line.num_bytes:
                    raise LinesChanged
                try:
                    _write(file, NEWLINE + line.text)
                except OSError:
                    file.truncate(size)
                    raise
                file.seek(0)
                _write(file, header)
            if self._is_synced:
                with open(path, "r+b") as file:
                    os.fsync(file.fileno())
        except FileNotFoundError as error:
            raise LinesChanged from error


def _private(path: str, flags: int) -> int:
    """Open a file that is its owner's only."""
    return os.open(path, flags, 0o600)


def _write(file: io.FileIO, content: bytes) -> None:
    """Write everything: a call may write less, for example when the disk is almost full."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
