"""The text of one reply and the log-probabilities of its tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probability of a generated token: float32 log_softmax of the model's raw logits.

    "Raw" means before grammar, bias, penalties and temperature.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the most likely token ids and their values, highest first


class ReplyText:
    """Text that only grows, in pieces. Not locked: the request that owns it guards it."""

    def __init__(self) -> None:
        self.num_chars = 0
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._logprob_ends: list[int] = []  # for each, the number of characters up to and with its piece

    def __str__(self) -> str:
        return "".join(self._pieces)

    def append(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        self._pieces.append(piece)
        self.num_chars += len(piece)
        if logprobs:
            self._logprobs += logprobs
            self._logprob_ends += [self.num_chars] * len(logprobs)

    def after(self, offset: int) -> str:
        """Return the text after the first `offset` characters; the cost grows only with what is returned."""
        missing, tail = self.num_chars - offset, []
        for piece in reversed(self._pieces):
            if missing <= 0:
                break
            tail.append(piece[-missing:] if missing < len(piece) else piece)
            missing -= len(piece)
        return "".join(reversed(tail))

    def logprobs(self, start: int, num_chars: int | None) -> list[TokenLogprob]:
        """Return all but the first `start`; with `num_chars`, only those of that many characters."""
        stop = None if num_chars is None else bisect_right(self._logprob_ends, num_chars)
        return self._logprobs[start:stop]
