"""Search for many strings at once in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class TokenFinder:
    """Finds occurrences of some tokens in a text, whole ones and parts at its ends."""

    def __init__(self, tokens: Iterable[str]) -> None:
        tokens = sorted(tokens)
        self._max_len = max(map(len, tokens), default=0)
        self._prefixes = {token[:n] for token in tokens for n in range(1, len(token))}
        self._suffixes = {token[n:] for token in tokens for n in range(1, len(token))}
        self.pattern = re.compile(_any_of(tokens))  # the longest token that starts at a position

    def occurs_in(self, text: str) -> bool:
        """Return whether the text contains a token."""
        return self.pattern.search(text) is not None

    def find(self, text: str) -> list[tuple[int, str]]:
        """Return each position where a token starts, with the longest token there; tokens may overlap."""
        found = []
        match = self.pattern.search(text)
        while match is not None:
            found.append((match.start(), match[0]))
            match = self.pattern.search(text, match.start() + 1)
        return found

    def cuts_at_end(self, text: str) -> set[int]:
        """Return a position inside each token that may start at the end of the text."""
        lengths = range(1, min(self._max_len, len(text) + 1))
        return {len(text) - n + 1 for n in lengths if text[len(text) - n :] in self._prefixes}

    def cuts_at_start(self, text: str, start: int) -> set[int]:
        """Return `start` if a token may end just behind it, else nothing."""
        return {start for n in range(1, self._max_len) if text[start : start + n] in self._suffixes}


def _any_of(strings: list[str]) -> str:
    """Return a pattern of the longest of some strings, in time that does not depend on how many there are.

    It is their trie: "ab|ac" becomes "a(?:b|c)".
    """
    trie: dict[str, Any] = {}
    for string in strings:
        node = trie
        for char in string:
            node = node.setdefault(char, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        text = ""
        while len(node) == 1 and "" not in node:  # no recursion along a single branch
            ((char, node),) = node.items()
            text += re.escape(char)
        branches = [re.escape(char) + pattern(child) for char, child in node.items() if char]
        if not branches:
            return text
        return f"{text}(?:{'|'.join(branches)}){'?' if '' in node else ''}"

    return pattern(trie) if trie else "(?!)"
