"""Incremental detokenization: token ids become text, up to the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """Decodes the token ids of one reply; joined, the returned pieces are the text of all ids."""

    def push(self, token_id: int) -> str:
        """Return the text that is certain now; parts of a character are held back."""

    def finish(self) -> str:
        """Return the text that was held back; call once, after the last id."""


class Detokenizer:
    """Produces the text of one reply, which ends before the first stop string, or with it.

    The rule works on characters, so it does not matter how the text is divided into tokens: the text ends at
    the first position where a stop string is complete; if several are complete there, the longest counts.
    The longest suffix that may still become a stop string is held back, and nothing more.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        stop_strings: Sequence[str] = (),
        *,
        min_tokens: int = 0,
        shows_stop_string: bool = False,
    ) -> None:
        """Start a text.

        :param min_tokens: stop strings are not looked for in the text of this many tokens
        :param shows_stop_string: end the text with the stop string rather than before it
        """
        self.is_stopped = False  # a stop string was found; no more text follows
        self.num_shown = 0  # characters that were returned
        self._decoder = decoder
        self._stops = [_StopString(text) for text in stop_strings if text]
        self._held = ""
        self._num_unstoppable = min_tokens
        self._shows_stop_string = shows_stop_string

    def push(self, token_id: int) -> str:
        """Return the text that may be shown now."""
        if self.is_stopped:
            return ""
        text = self._decoder.push(token_id)
        if self._num_unstoppable:
            self._num_unstoppable -= 1
            return self._shown(text)
        return self._shown(self._scan(text))

    @property
    def num_decoded(self) -> int:
        """Characters decoded so far, shown or held back, without a stop string that was found."""
        return self.num_shown + len(self._held)

    def finish(self) -> str:
        """Return the text that was held back; call once, after the last id."""
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
                shown, self._held = self._held + text[: i + 1], ""
                return shown if self._shows_stop_string else shown[:-num_stop_chars]
        text = self._held + text
        cut = len(text) - max(stop.num_matched for stop in self._stops)
        self._held = text[cut:]
        return text[:cut]


class _StopString:
    """Knuth-Morris-Pratt matcher; the text so far ends with `num_matched` first characters of the string."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.num_matched = 0
        self._shorter = [0]  # the failure function: longest proper prefix that is also a suffix
        for char in text[1:]:
            self.push(char)
            self._shorter.append(self.num_matched)
        self.num_matched = 0

    def push(self, char: str) -> int:
        """Advance by one character; return the length of the stop string if it is complete, else 0."""
        n = self.num_matched
        while n and self._text[n] != char:
            n = self._shorter[n - 1]
        if self._text[n] == char:
            n += 1
        self.num_matched = n
        return n if n == len(self._text) else 0
