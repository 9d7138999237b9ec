"""Which tokens a grammar allows next in a reply, computed by llguidance.

Masks are computed in the worker thread without the GIL; on CUDA, while the device computes the forward pass
that they are for. Limits on each step bound how much one reply can delay the others.
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

MAX_CACHED = 256  # compiled grammars
MAX_STEP_ITEMS = 20_000  # items of the parser, about a millisecond
MAX_STEP_FUEL = 100_000  # operations of the lexer, some milliseconds
MAX_LEXER_STATES = 50_000  # of one reply, 1 to 2 kB each


class GrammarMatcher:
    """Implements `engine.sequence.Matcher` for one reply."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self.num_bytes = -(-vocab_size // 32) * 4
        self._matcher = matcher

    def accept(self, token_id: int) -> bool:
        if not self._matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} is not allowed by the grammar: {self._error()}")
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
    """Compiles grammars for a model's tokenizer and caches those used most recently.

    HTTP threads compile grammars, worker threads take copies. The tokenizer is wrapped on first use.
    """

    def __init__(self, tokenizer: Any, eos_ids: Callable[[], frozenset[int]]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._wrapped: Any = None
        self._wrapping = threading.Lock()  # guards _wrapped
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()  # guards _compiled; held only briefly

    def matcher(self, grammar: str) -> GrammarMatcher:
        """Create the matcher of one reply.

        :raises BadRequest: the grammar cannot be used with this model
        """
        with self._lock:
            compiled = self._compiled.get(grammar)
        if compiled is None:
            compiled = self._compile(grammar)
        with self._lock:
            self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
            return GrammarMatcher(compiled.deep_copy(), self._wrapped.vocab_size)

    def _compile(self, grammar: str) -> Any:
        """Compile a grammar and compute its first mask, to refuse one that is too costly even for that."""
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
            raise BadRequest(f"this model's tokenizer does not support structured output: {error}") from error
