"""Replacement of strings in streamed text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigError


class Replacer:
    """Replaces strings in one pass from left to right; the longest match wins, and results are not searched.

    The result does not depend on how the text is divided into pieces: the longest end of the text that may
    become a match is held back until it is decided.
    """

    def __init__(self, replacements: Sequence[tuple[str, str]]) -> None:
        """Prepare (old, new) pairs.

        :raises ConfigError: an old string is empty
        """
        self._new = dict(replacements)
        if "" in self._new:
            raise ConfigError("the string to be replaced must not be empty")
        self._longest_first = sorted(self._new, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._longest_first)) or "(?!)")
        self._held = ""

    def push(self, text: str) -> str:
        """Add a piece of text; return the text that is decided."""
        return self._replace(self._held + text, is_last=False)

    def finish(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        return self._replace(self._held, is_last=True)

    def _replace(self, text: str, *, is_last: bool) -> str:
        pieces, position = [], 0
        while True:
            end = len(text) if is_last else self._first_undecided(text, position)
            match = self._pattern.search(text, position)
            if match is None or match.start() >= end:
                break
            pieces += [text[position : match.start()], self._new[match.group()]]
            position = match.end()
        self._held = text[end:]
        return "".join([*pieces, text[position:end]])

    def _first_undecided(self, text: str, position: int) -> int:
        """Return the start of the longest end of the text that may become a match."""
        max_len = len(self._longest_first[0]) if self._longest_first else 1
        for start in range(max(position, len(text) - max_len + 1), len(text)):
            if any(old != text[start:] and old.startswith(text[start:]) for old in self._longest_first):
                return start
        return len(text)
