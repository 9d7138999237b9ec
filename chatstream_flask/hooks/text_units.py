"""Streamed text in whole words, sentences, or all at once, however it was cut into pieces."""

from __future__ import annotations

import re
from typing import Literal, get_args

UnitName = Literal["word", "sentence", "reply"]
UNIT_NAMES = get_args(UnitName)

CLOSERS = "\"')]」』）】"  # may stand between the end of a sentence and what follows it
ENDS = {
    "word": re.compile(r"\s"),
    # A full stop needs white space after it, so that "3.14" and "a.b@example.org" stay whole.
    "sentence": re.compile(
        rf"[.!?][{re.escape(CLOSERS)}]*\s|[。！？][{re.escape(CLOSERS)}]*(?=[^{re.escape(CLOSERS)}])|\n"
    ),
}


class TextUnits:
    """Collects pieces of text and returns the units that are complete; their texts add up to the whole.

    A word ends with one white space. A sentence ends with ".", "!" or "?" and white space, with "。", "！" or
    "？", or with a line break. A reply ends with `finish`.
    """

    def __init__(self, unit: UnitName) -> None:
        self._end = ENDS.get(unit)
        self._held: list[str] = []  # of a reply
        self._text = ""  # of the unit that is not complete
        self._searched = 0  # characters of it in which no unit ends

    def push(self, text: str) -> list[str]:
        if self._end is None:
            self._held.append(text)
            return []
        self._text += text
        units, start = [], 0
        while match := self._end.search(self._text, max(start, self._searched)):
            units.append(self._text[start : match.end()])
            start = self._searched = match.end()
        self._text = self._text[start:]
        self._searched = max(0, len(self._text.rstrip(CLOSERS)) - 1)  # the end may be the mark of a sentence
        return units

    def finish(self) -> list[str]:
        """Return the rest, which no unit's end follows."""
        rest = "".join([*self._held, self._text])
        self._held, self._text, self._searched = [], "", 0
        return [rest] if rest else []
