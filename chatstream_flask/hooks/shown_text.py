"""What of a reply its readers may see."""

from __future__ import annotations

import threading

from ..engine.reasoning import Piece
from ..engine.reply_text import ReplyText
from ..reply_format.deltas import Delta
from .tool_calls import Step


class ShownText:
    """Text that was let through, steps of tools, and calls that are left to the client.

    It only grows, and is read by any thread: as pieces by `/chat_stream`, as deltas by `/v1`.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._deltas: list[Delta] = []
        self._text = ReplyText()
        self._is_continued = {False: False, True: False}  # by is_reasoning: a step came after its newest text

    @property
    def num_chars(self) -> int:
        """Characters of the text, and one for each step."""
        return self._text.num_chars

    def add_piece(self, piece: Piece) -> None:
        """Add text; after a step it begins a paragraph, unless white space parts it from the text before."""
        with self._guard:
            if self._is_continued[piece.is_reasoning]:
                self._is_continued[piece.is_reasoning] = False
                before = self._text.reasoning if piece.is_reasoning else self._text.answer
                if before and not (before[-1].isspace() or piece.text[0].isspace()):
                    piece = piece._replace(text=f"\n\n{piece.text}")
            self._deltas.append({"reasoning_content" if piece.is_reasoning else "content": piece.text})
            self._text.append(piece)

    def add_step(self, step: Step) -> None:
        """Add a new state of the call of a tool, which only pieces show."""
        with self._guard:
            self._text.append(Piece("", step=dict(step)))
            self._is_continued = {False: True, True: True}

    def add_call(self, delta: Delta) -> None:
        """Add a part of a call that is left to the client, which only deltas show."""
        with self._guard:
            self._deltas.append(delta)

    def pieces_after(self, offset: int) -> list[Piece]:
        """Return the text and steps after the first `offset` characters."""
        with self._guard:
            return self._text.after(offset)

    def deltas_after(self, num: int) -> list[Delta]:
        """Return all deltas but the first `num`."""
        with self._guard:
            return self._deltas[num:]

    def texts(self) -> tuple[str, str]:
        """Return the answer and the reasoning."""
        with self._guard:
            return self._text.answer, self._text.reasoning
