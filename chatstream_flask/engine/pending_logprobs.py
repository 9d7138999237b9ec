"""Log-probabilities of tokens whose text has not been emitted yet."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .reply_text import TokenLogprob


class PendingLogprobs:
    """Holds each token back until its text is shown; tokens whose text lies in a stop string stay for ever.

    The text of a token ends where the decoder next returned any: the parts of a character go together.
    """

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self._pending: list[tuple[TokenLogprob, int]] = []  # with the number of characters before it
        self._ends: list[int] = []  # number of characters up to its end, for the first ones of `_pending`

    def push(self, logprob: TokenLogprob, num_before: int) -> None:
        """Add a token that the detokenizer has just got.

        :param num_before: characters that had been decoded before this token
        """
        self._pending.append((logprob, num_before))
        num_decoded = self._detokenizer.num_decoded
        if num_decoded > num_before:
            self._ends += [num_decoded] * (len(self._pending) - len(self._ends))

    def drop_unfinished(self) -> None:
        """Remove the tokens that no text has come of."""
        del self._pending[len(self._ends) :]

    def pop(self, *, is_last: bool = False) -> list[TokenLogprob]:
        """Remove and return the tokens whose text is shown.

        :param is_last: also return those whose text was never completed, as the reply has ended
        """
        num_shown = self._detokenizer.num_shown
        if self._detokenizer.is_stopped:
            num = sum(start < num_shown for _, start in self._pending)
        elif is_last:
            num = len(self._pending)
        else:
            num = sum(end <= num_shown for end in self._ends)
        shown = [logprob for logprob, _ in self._pending[:num]]
        del self._pending[:num], self._ends[:num]
        return shown
