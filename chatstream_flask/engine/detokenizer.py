"""ids -> text, piece by piece, holding back half characters and half stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """The joined pieces of `push` and the last `finish` are the text of all ids."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


class Detokenizer:
    """Text of one reply, ending before the first stop string.

    Defined character by character, so how the text falls into tokens changes nothing: it ends at the first
    position where a stop string is complete; of several complete there the longest counts. Held back is the
    longest end of the text that may still become a stop string, and nothing more.
    """

    def __init__(self, decoder: TextDecoder, stop_strings: Sequence[str] = ()) -> None:
        self.is_stopped = False  # a stop string was met; nothing comes after it
        self.num_shown = 0  # characters
        self._decoder = decoder
        self._stops = [_StopString(text) for text in stop_strings if text]
        self._held = ""

    def push(self, token_id: int) -> str:
        """Text that may be shown now."""
        return "" if self.is_stopped else self._shown(self._scan(self._decoder.push(token_id)))

    @property
    def num_decoded(self) -> int:
        """Characters of the ids so far, shown or held back, but nothing of a stop string that was met."""
        return self.num_shown + len(self._held)

    def finish(self) -> str:
        """What was still held back, when the reply ended without a stop string."""
        if self.is_stopped:
            return ""
        shown = self._scan(self._decoder.finish())
        held, self._held = self._held, ""
        return self._shown(shown + held)

    def _shown(self, text: str) -> str:
        self.num_shown += len(text)
        return text

    def _scan(self, text: str) -> str:
        if not self._stops:
            return text
        for i, char in enumerate(text):
            num_stop_chars = max(stop.push(char) for stop in self._stops)
            if num_stop_chars:
                self.is_stopped = True
                shown, self._held = (self._held + text[: i + 1])[:-num_stop_chars], ""
                return shown
        text = self._held + text
        cut = len(text) - max(stop.num_matched for stop in self._stops)
        self._held = text[cut:]
        return text[:cut]


class _StopString:
    """Knuth-Morris-Pratt: `num_matched` first characters of the stop string end the text so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.num_matched = 0
        self._shorter = [0]  # for each length matched: the next shorter start that is also an end of it
        for char in text[1:]:
            self.push(char)
            self._shorter.append(self.num_matched)
        self.num_matched = 0

    def push(self, char: str) -> int:
        """The stop string's length if this character completes it, else 0."""
        n = self.num_matched
        while n and self._text[n] != char:
            n = self._shorter[n - 1]
        if self._text[n] == char:
            n += 1
        self.num_matched = n
        return n if n == len(self._text) else 0
