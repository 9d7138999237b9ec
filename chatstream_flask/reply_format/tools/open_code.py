"""OpenCode: whether a Markdown text that arrives in pieces ends within code."""

from __future__ import annotations

FENCE = "```"


class OpenCode:
    """Follows fences and backticks; a line that begins with a fence opens or closes a block."""

    def __init__(self) -> None:
        self._is_fenced = False  # before the last line
        self._head = ""  # the first characters of the last line
        self._num_ticks = 0  # backticks in it

    @property
    def is_open(self) -> bool:
        if self._head == FENCE:
            return not self._is_fenced
        return self._is_fenced or self._num_ticks % 2 == 1

    def push(self, text: str) -> None:
        *ended, last = text.split("\n")
        for line in ended:
            self._add(line)
            self._is_fenced ^= self._head == FENCE
            self._head, self._num_ticks = "", 0
        self._add(last)

    def _add(self, text: str) -> None:
        self._num_ticks += text.count("`")
        if len(self._head) < len(FENCE):
            self._head = (self._head + text).lstrip()[: len(FENCE)]
