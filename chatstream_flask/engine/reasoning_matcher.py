"""ReasoningMatcher: a grammar for replies that may reason first."""

from __future__ import annotations

import ctypes

from .reasoning import Reasoning
from .sequence import Matcher


class ReasoningMatcher:
    """Allows, before the grammar's beginning, the tag that begins reasoning and what separates its end.

    The reasoning itself is free, and the grammar begins after it: see `engine.sequence.Sequence.matcher`.
    """

    def __init__(self, grammar: Matcher, reasoning: Reasoning) -> None:
        """Start at the beginning of a reply.

        :param grammar: holds the answer
        """
        self.num_bytes = grammar.num_bytes
        self._grammar = grammar
        self._opening_ids = list(reasoning.opening_ids)  # those that are still to come
        self._is_opening = False  # whether the first of them was chosen
        self._separator_ids = list(reasoning.separator_ids)

    @property
    def next_opening_id(self) -> int | None:
        """The next token of the tag that begins reasoning; None if that is complete, or cannot come now."""
        return self._opening_ids[0] if self._opening_ids else None

    @property
    def is_opening(self) -> bool:
        """Whether the tag has begun and is not complete."""
        return self._is_opening

    def refuse_opening(self) -> None:
        """Let the grammar hold from the next token on."""
        self._opening_ids, self._separator_ids = [], []

    def accept(self, token_id: int) -> bool:
        for may_come in (self._opening_ids, self._separator_ids):
            if may_come:
                if token_id == may_come[0]:
                    del may_come[0]
                    self._is_opening = bool(self._opening_ids)
                    return False
                break
        self._opening_ids, self._separator_ids = [], []
        return self._grammar.accept(token_id)

    def write_mask(self, address: int, num_bytes: int) -> bool:
        if self._is_opening:
            ctypes.memset(address, 0, num_bytes)
        elif not self._grammar.write_mask(address, num_bytes):
            return False
        for token_id in (self._opening_ids or self._separator_ids)[:1]:
            byte, bit = ctypes.c_uint8.from_address(address + token_id // 8), 1 << token_id % 8
            if len(self._opening_ids) > 1 and byte.value & bit and not self._is_opening:
                self._opening_ids, self._separator_ids = [], []  # more probably it begins the answer
            byte.value |= bit
        return True
