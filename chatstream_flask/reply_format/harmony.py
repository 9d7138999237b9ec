"""Harmony, the format of gpt-oss: messages in channels (https://cookbook.openai.com/articles/openai-harmony)."""

from __future__ import annotations

import re

from ..engine.reasoning import Piece
from .markers import held_len

START, CHANNEL, MESSAGE, END, CALL = "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"
ENDS = (END, CALL, "<|return|>", START)  # the last one begins the next message
MARKERS = (*ENDS, CHANNEL, MESSAGE, "<|constrain|>")
TOOL_CALL = f"{CHANNEL}commentary to=functions."  # how the splitter writes the header of each tool call
RECIPIENT = re.compile(r"to=functions\.([a-zA-Z0-9_.-]+)")


class HarmonyFormat:
    """The channels of gpt-oss, used like ReasoningTags."""

    markers = MARKERS
    separator = ""

    def closing_text(self, *, is_begun: bool) -> str:
        """Return the text that ends the analysis and begins the answer.

        :param is_begun: False where the reply has no token yet
        """
        return f"{END}{START}assistant{CHANNEL}final{MESSAGE}" if is_begun else f"{CHANNEL}final{MESSAGE}"

    def make_splitter(self, prompt: str, *, is_constrained: bool = False) -> HarmonySplitter:
        """Return the splitter of a reply.

        :param is_constrained: whether a grammar holds the answer, which then says itself what is called
        """
        return HarmonySplitter(keeps_headers=not is_constrained)

    def is_over(self, prompt: str) -> bool:
        """Return False: every reply may have an analysis."""
        return False


class HarmonySplitter:
    """Splits a reply by channel: analysis is reasoning, everything else belongs to the answer.

    A tool call stays in the answer as `<|channel|>commentary to=functions.NAME<|message|>ARGUMENTS<|call|>`,
    however the model writes its header; the tool syntax of gpt-oss finds it there.
    """

    def __init__(self, *, keeps_headers: bool = True) -> None:
        self._keeps_headers = keeps_headers  # those of tool calls
        self._rest = ""
        self._is_first = True  # nothing was decided yet
        self._is_header = True
        self._is_analysis = False
        self._is_call = False

    @property
    def is_reasoning(self) -> bool:
        """Whether no answer is being written: headers count as reasoning."""
        return self._is_header or self._is_analysis

    def push(self, text: str) -> list[Piece]:
        self._rest += text
        pieces: list[Piece] = []
        while True:
            was_header, rest = self._is_header, self._rest
            piece = self._header() if was_header else self._body()
            if piece is not None:
                pieces.append(piece)
            if self._is_header is was_header and self._rest == rest:
                return pieces

    def finish(self) -> list[Piece]:
        rest, self._rest = self._rest, ""
        if not rest or (self._is_header and not self._is_first):
            return []
        return [Piece(rest, self._is_analysis)]

    def _header(self) -> Piece | None:
        if not self._may_be_header():
            self._is_header = self._is_first = False
            return None
        header, marker, body = self._rest.partition(MESSAGE)
        if not marker:
            return None
        self._rest, self._is_header, self._is_first = body, False, False
        channel = header.rpartition(CHANNEL)[2]
        recipient = RECIPIENT.search(header)
        self._is_analysis = channel.startswith("analysis") and recipient is None
        if recipient is None or not self._keeps_headers:
            return None
        self._is_call = True
        return Piece(f"{TOOL_CALL}{recipient[1]}{MESSAGE}")

    def _may_be_header(self) -> bool:
        """Return False if the reply starts with plain text: the model does not follow the format."""
        text = self._rest.lstrip()
        return not self._is_first or any(text.startswith(b) or b.startswith(text) for b in ("<|", "to="))

    def _body(self) -> Piece | None:
        found = [(self._rest.index(end), end) for end in ENDS if end in self._rest]
        if not found:
            cut = len(self._rest) - held_len(self._rest, *ENDS)
            text, self._rest = self._rest[:cut], self._rest[cut:]
            return Piece(text, self._is_analysis) if text else None
        position, end = min(found)
        text, self._rest = self._rest[:position], self._rest[position + len(end) :]
        piece = Piece(text + CALL if self._is_call else text, self._is_analysis)
        self._is_header, self._is_analysis, self._is_call = True, False, False
        return piece if piece.text else None
