"""ReasoningMatcher: a grammar for replies that may reason first."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from .sequence import Matcher


class ReasoningMatcher:
    """Allows the tag that begins the reasoning in place of the grammar's beginning.

    The reasoning itself is free, and the grammar begins after it: see `engine.sequence.Sequence.matcher`.
    """

    def __init__(self, grammar: Matcher, opening_ids: Sequence[int]) -> None:
        """Start at the beginning of a reply.

        :param grammar: holds the answer
        :param opening_ids: the tokens of the tag, at least one
        """
        self.num_bytes = grammar.num_bytes
        self._grammar = grammar
        self._opening_ids = opening_ids
        self._num_opened: int | None = 0  # tokens of the tag that were chosen; None: no more may come

    def accept(self, token_id: int) -> bool:
        if self._num_opened is None or token_id != self._opening_ids[self._num_opened]:
            self._num_opened = None
            return self._grammar.accept(token_id)
        self._num_opened += 1
        if self._num_opened == len(self._opening_ids):
            self._num_opened = None
        return False

    def write_mask(self, address: int, num_bytes: int) -> bool:
        if self._num_opened:
            ctypes.memset(address, 0, num_bytes)
        elif not self._grammar.write_mask(address, num_bytes):
            return False
        if self._num_opened is not None:
            token_id = self._opening_ids[self._num_opened]
            byte, bit = ctypes.c_uint8.from_address(address + token_id // 8), 1 << token_id % 8
            if byte.value & bit and len(self._opening_ids) > 1:  # it more probably begins the answer
                self._num_opened = None
            byte.value |= bit
        return True
