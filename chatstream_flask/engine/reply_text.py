"""The text of one reply, its reasoning and the log-probabilities of its tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .reasoning import Piece


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probability of a token: float32 log_softmax of the model's raw logits.

    "Raw" means before grammar, bias, penalties and temperature.
    """

    token_id: int
    logprob: float | None  # None: the first token of a prompt, which nothing comes before
    top: tuple[tuple[int, float], ...]  # the most likely token ids and their values, highest first
    rank: int | None = None  # of a prompt token: 1 + the number of tokens that are more likely


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring pieces of a kind."""
    whole: list[Piece] = []
    for (is_reasoning, is_step), run in groupby(pieces, _kind):
        parts = list(run)
        whole += parts if is_step else [Piece("".join(part.text for part in parts), is_reasoning)]
    return whole


def _kind(piece: Piece) -> tuple[bool, bool]:
    return piece.is_reasoning, piece.step is not None


class ReplyText:
    """Reasoning and answer in the order in which they came. It only grows; its owner guards it."""

    def __init__(self) -> None:
        self.num_chars = 0  # of reasoning and answer together, and one for each step
        self._pieces: list[Piece] = []
        self._logprobs: list[TokenLogprob] = []
        self._logprob_ends: list[int] = []  # for each, the number of characters up to and with its piece

    @property
    def answer(self) -> str:
        return "".join(piece.text for piece in self._pieces if not piece.is_reasoning)

    @property
    def reasoning(self) -> str:
        return "".join(piece.text for piece in self._pieces if piece.is_reasoning)

    def append(self, piece: Piece, logprobs: Sequence[TokenLogprob] = ()) -> None:
        self._pieces.append(piece)
        self.num_chars += piece.size
        if logprobs:
            self._logprobs += logprobs
            self._logprob_ends += [self.num_chars] * len(logprobs)

    def after(self, offset: int) -> list[Piece]:
        """Return what follows the first `offset` characters, with neighbouring pieces of a kind joined.

        The cost grows only with what is returned.
        """
        missing, tail = self.num_chars - offset, list[Piece]()
        for piece in reversed(self._pieces):
            if missing <= 0:
                break
            tail.append(piece if missing >= piece.size else piece._replace(text=piece.text[-missing:]))
            missing -= piece.size
        return joined(reversed(tail))

    def logprobs(self, start: int, num_chars: int | None) -> list[TokenLogprob]:
        """Return all but the first `start`; with `num_chars`, only those of that many characters."""
        stop = None if num_chars is None else bisect_right(self._logprob_ends, num_chars)
        return self._logprobs[start:stop]
