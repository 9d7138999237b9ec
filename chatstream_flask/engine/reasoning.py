"""Reasoning: what a model writes before its answer, apart from the answer in text and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .detokenizer import TextDecoder


class Piece(NamedTuple):
    """A part of a reply's text, or what is told between two parts of it."""

    text: str
    is_reasoning: bool = False
    step: dict[str, Any] | None = None  # of a tool call; the text is "" then

    @property
    def size(self) -> int:
        """Characters by which readers say how much of a reply they have; a step counts as one."""
        return len(self.text) if self.step is None else 1


class ReasoningSplitter(Protocol):
    """Divides the text of one reply into reasoning and answer; how the text is cut makes no difference."""

    @property
    def is_reasoning(self) -> bool:
        """Whether the reply so far ends within its reasoning."""

    def push(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]:
        """Return what was held back; call once, after all text."""


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """How one reply reasons.

    :param splitter: finds the reasoning in the text
    :param closing_ids: tokens that end the reasoning and begin the answer, in the model's own words
    :param num_opening: number of tokens of the tag with which the model may begin its reasoning, whatever
        `max_tokens`
    :param opening_ids: these tokens, where a reply that a grammar holds may begin with them; empty: the
        prompt has begun the reasoning, or there is none
    :param separator_ids: tokens that may stand between reasoning and answer, also where a grammar holds that
    :param max_tokens: tokens of reasoning after which it is closed with `closing_ids`; None, only where it is
        counted: no limit but max_new_tokens
    :param is_counted: whether max_new_tokens limits reasoning and answer together
    """

    splitter: ReasoningSplitter
    closing_ids: Sequence[int]
    max_tokens: int | None
    num_opening: int = 1
    opening_ids: Sequence[int] = ()
    separator_ids: Sequence[int] = ()
    is_counted: bool = False

    @property
    def num_extra_tokens(self) -> int:
        """How many tokens a reply may have beyond max_new_tokens."""
        if self.is_counted or self.max_tokens is None:
            return 0
        return max(self.max_tokens, self.num_opening) + len(self.closing_ids)


class AnswerDecoder:
    """TextDecoder of the answer only; `emit` gets the reasoning."""

    def __init__(
        self, decoder: TextDecoder, splitter: ReasoningSplitter, emit: Callable[[str], None]
    ) -> None:
        self._decoder = decoder
        self._splitter = splitter
        self._emit = emit

    def push(self, token_id: int) -> str:
        return self._answer(self._splitter.push(self._decoder.push(token_id)))

    def finish(self) -> str:
        pieces = self._splitter.push(self._decoder.finish())
        return self._answer(pieces + self._splitter.finish())

    def _answer(self, pieces: list[Piece]) -> str:
        for piece in pieces:
            if piece.is_reasoning:
                self._emit(piece.text)
        return "".join(piece.text for piece in pieces if not piece.is_reasoning)
