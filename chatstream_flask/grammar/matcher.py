"""Grammars at work: which tokens may come next in one reply, by llguidance.

Its masks are computed in the generation thread, without the GIL, and on CUDA while the device still computes
the forward that they are for. Limits on each step bound what one reply can cost its neighbours.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..errors import BadRequest
from .schema import MAX_MESSAGE_LEN, load_llguidance

logger = logging.getLogger("chatstream_flask")

MAX_KEPT = 256  # compiled grammars
MAX_STEP_ITEMS = 20_000  # of the parser, about a millisecond
MAX_STEP_FUEL = 100_000  # of the lexer, some milliseconds
MAX_LEXER_STATES = 50_000  # in one reply, 1 to 2 kB each


class GrammarMatcher:
    """The `sequence.Matcher` of one reply."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self.num_bytes = -(-vocab_size // 32) * 4
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        if not self._matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} does not fit the grammar: {self._error()}")
        return bool(self._matcher.is_stopped())

    def write_mask(self, address: int, num_bytes: int) -> bool:
        self._matcher.unsafe_compute_mask_ptr(address, num_bytes)
        if self._matcher.is_error():
            logger.warning("a grammar became too costly in mid-reply: %s", self._error())
            return False
        return True

    def _error(self) -> str:
        return str(self._matcher.get_error()[:MAX_MESSAGE_LEN])


class GrammarCompiler:
    """Wraps a model's tokenizer, once and when first needed; keeps the compiled grammars that were used last.

    Shared by HTTP threads, which compile, and generation threads, which take copies.
    """

    def __init__(self, tokenizer: Any, eos_ids: Callable[[], frozenset[int]]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._wrapped: Any = None
        self._wrapping = threading.Lock()  # guards _wrapped
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()  # guards _compiled; never held for long

    def matcher(self, grammar: str) -> GrammarMatcher:
        """A fresh one for one reply; raises BadRequest for a grammar that cannot be used with this model."""
        with self._lock:
            compiled = self._compiled.get(grammar)
        if compiled is None:
            compiled = self._compile(grammar)
        with self._lock:
            self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > MAX_KEPT:
                self._compiled.popitem(last=False)
            return GrammarMatcher(compiled.deep_copy(), self._wrapped.vocab_size)

    def _compile(self, grammar: str) -> Any:
        """Its first mask is computed here, so that a grammar that is too costly for one is refused."""
        llguidance = load_llguidance()
        with self._wrapping:
            if self._wrapped is None:
                self._wrapped = self._wrap()
        limits = llguidance.LLParserLimits(
            step_max_items=MAX_STEP_ITEMS,
            step_lexer_fuel=MAX_STEP_FUEL,
            max_lexer_states=MAX_LEXER_STATES,
            precompute_large_lexemes=False,
            verbose_errors=False,
        )
        compiled = llguidance.LLMatcher(self._wrapped, grammar, log_level=0, limits=limits)
        if not compiled.is_error():
            compiled.compute_bitmask()
        if compiled.is_error():
            raise BadRequest(f"the grammar cannot be used: {compiled.get_error()[:MAX_MESSAGE_LEN]}")
        return compiled

    def _wrap(self) -> Any:
        from llguidance.hf import from_tokenizer

        try:
            return from_tokenizer(self._tokenizer, eos_token=sorted(self._eos_ids()) or None)
        except Exception as error:
            raise BadRequest(f"this model's tokenizer makes no structured replies: {error}") from error
