"""Replaces strings in text that comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigError


class Replacer:
    """At each place, from left to right, the longest string that matches is replaced; no result is again.

    How the text falls into pieces changes nothing. Held back is the longest end of the text that may still
    become one of the strings; nothing is lost.
    """

    def __init__(self, replacements: Sequence[tuple[str, str]]) -> None:
        self._new = dict(replacements)
        if "" in self._new:
            raise ConfigError("a replacement needs a string to look for, not an empty one")
        self._longest_first = sorted(self._new, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._longest_first)) or "(?!)")
        self._held = ""

    def push(self, text: str) -> str:
        """Text that nothing to come can change."""
        return self._replace(self._held + text, is_last=False)

    def finish(self) -> str:
        """What was still held back."""
        return self._replace(self._held, is_last=True)

    def _replace(self, text: str, *, is_last: bool) -> str:
        pieces, position = [], 0
        while True:
            end = len(text) if is_last else self._first_open(text, position)
            match = self._pattern.search(text, position)
            if match is None or match.start() >= end:
                break
            pieces += [text[position : match.start()], self._new[match.group()]]
            position = match.end()
        self._held = text[end:]
        return "".join([*pieces, text[position:end]])

    def _first_open(self, text: str, position: int) -> int:
        """Where the longest end of the text begins that may still become one of the strings."""
        max_len = len(self._longest_first[0]) if self._longest_first else 1
        for start in range(max(position, len(text) - max_len + 1), len(text)):
            if any(old != text[start:] and old.startswith(text[start:]) for old in self._longest_first):
                return start
        return len(text)
