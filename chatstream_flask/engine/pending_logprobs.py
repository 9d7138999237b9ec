"""PendingLogprobs: the log-probabilities of tokens whose text is not yet told."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .reply_text import TokenLogprob


class PendingLogprobs:
    """Lets each token go with its text; those whose text lies within a stop string are never let go.

    A token's text ends where the decoder next gave out any: the parts of a character go together.
    """

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self._held: list[tuple[TokenLogprob, int]] = []  # with the number of characters before it
        self._ends: list[int] = []  # of the first of them, in characters

    def push(self, logprob: TokenLogprob, num_before: int) -> None:
        """After the detokenizer got it, when `num_before` characters were decoded before it."""
        self._held.append((logprob, num_before))
        num_decoded = self._detokenizer.num_decoded
        if num_decoded > num_before:
            self._ends += [num_decoded] * (len(self._held) - len(self._ends))

    def pop(self, *, is_last: bool = False) -> list[TokenLogprob]:
        num_shown = self._detokenizer.num_shown
        if self._detokenizer.is_stopped:
            num = sum(start < num_shown for _, start in self._held)
        elif is_last:
            num = len(self._held)
        else:
            num = sum(end <= num_shown for end in self._ends)
        told = [logprob for logprob, _ in self._held[:num]]
        del self._held[:num], self._ends[:num]
        return told
