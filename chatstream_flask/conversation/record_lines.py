"""Lines of JSON in which a store keeps a record, so that a turn is stored without its earlier ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidRecord
from .record_changes import apply_change, change_between, encode
from .record_json import to_json

NEWLINE = b"\n"  # between two lines, where a store keeps them as one text; JSON text has none
MAX_BYTES_PER_RECORD_BYTE = 2  # of lines, before they are replaced by one
MIN_BYTES = 4096  # of lines that are never replaced


class DamagedLines(InvalidRecord):
    """A line that cannot be read, or that is not a change of the record in the lines before it."""

    def __init__(self, num_good: int, error: Exception) -> None:
        super().__init__(f"a stored conversation is damaged in line {num_good + 1}: {error!r}")
        self.num_good = num_good  # lines before the damaged one


class LinesChanged(Exception):
    """What is stored is not what was read or stored last."""


class Line(NamedTuple):
    """A line to be stored."""

    text: bytes
    num_lines: int  # that are stored before it; 0: it replaces what is stored
    num_bytes: int  # of those lines, with a newline between two
    record: bytes  # JSON of the whole record; empty if it cannot be compared

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all lines once this one is stored."""
        return self.num_bytes + bool(self.num_lines) * len(NEWLINE) + len(self.text)


class RecordLines:
    """What a lease knows of the stored lines: the first is a record, each other one a change of it.

    When the lines are twice as long as the record, which takes turns that were removed, one line
    replaces them.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let the next line replace what is stored."""
        self._num_lines = self._num_bytes = 0
        self._record = b""

    def read(self, lines: Sequence[str | bytes]) -> dict[str, Any] | None:
        """Return the record in the lines that are stored now; None if there are none.

        :raises DamagedLines: it cannot be read
        """
        self.forget()
        record = read_lines(lines)
        if record is not None:
            self._record = _comparable(record)
            self._num_lines = len(lines)
            self._num_bytes = len(lines) - 1 + sum(_num_bytes(line) for line in lines)
        return record

    def store(self, record: dict[str, Any], write: Callable[[Line], bool]) -> bool:
        """Store a new version of the record; return what `write` does, False if nothing was stored.

        :param write: stores a line; raises LinesChanged unless what it continues is there
        :raises InvalidRecord: the record holds something else than JSON's types
        """
        try:
            return self._store(record, write)
        except LinesChanged:
            self.forget()
            return self._store(record, write)

    def _store(self, record: dict[str, Any], write: Callable[[Line], bool]) -> bool:
        line = self._next(record)
        if not write(line):
            return False
        self._num_lines = line.num_lines + 1
        self._num_bytes = line.total_bytes
        self._record = line.record
        return True

    def _next(self, record: dict[str, Any]) -> Line:
        now = _comparable(record)
        if now and self._record:
            text = to_json(change_between(self._record, record)).encode()
            line = Line(text, self._num_lines, self._num_bytes, now)
            if line.total_bytes <= max(MIN_BYTES, MAX_BYTES_PER_RECORD_BYTE * len(now)):
                return line
        return Line(to_json(record).encode(), 0, 0, now)


def read_lines(lines: Sequence[str | bytes]) -> dict[str, Any] | None:
    """Return the record of its lines; None if there are none.

    :raises DamagedLines: it cannot be read
    """
    record: dict[str, Any] | None = None
    for number, line in enumerate(lines):
        try:
            value = json.loads(line)
            if record is not None:
                apply_change(record, value)
                continue
            record = value
            if not isinstance(record, dict):
                raise TypeError(f"a {type(record).__name__}, not a dict")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedLines(number, error) from error
    return record


def _comparable(record: dict[str, Any]) -> bytes:
    """Return the record as JSON; nothing if it has lone surrogates, or values that JSON cannot have."""
    try:
        return encode(record)
    except (TypeError, ValueError, RecursionError):
        return b""


def _num_bytes(line: str | bytes) -> int:
    return len(line.encode() if isinstance(line, str) else line)
