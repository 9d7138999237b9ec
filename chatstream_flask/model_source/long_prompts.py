"""Bounds for what the tokenization of a long prompt may cost."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ..errors import PromptTooLong

LONG = 50_000  # characters; a tokenizer may need 400 bytes for each while it works
_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None


class LongPrompts:
    """Refuses prompts by their characters where that is enough, and tokenizes long ones one at a time.

    A million characters take a tokenizer up to 400 MB for some seconds, and the C library keeps much of that
    for the thread in which it was used.
    """

    def __init__(self, tokenizer: Any, context_len: int) -> None:
        self._tokenizer = tokenizer
        self._context_len = context_len
        self._one_at_a_time = threading.Lock()

    @cached_property
    def max_chars(self) -> int | None:
        """Characters beyond which no text fits into the context: no token has more than the longest one.

        None if the tokenizer does not list its tokens. One that works on bytes has a character for each.
        """
        get_vocab = getattr(self._tokenizer, "get_vocab", None)
        return None if get_vocab is None else self._context_len * max(map(len, get_vocab()))

    @contextmanager
    def tokenizing(self, prompt: Any) -> Iterator[None]:
        """Tokenize a prompt in the `with` block, alone and giving memory back if it is long.

        :param prompt: a text, or messages and tools with texts in them
        :raises PromptTooLong: it has so many characters that it cannot fit into the context
        """
        num_chars = _num_chars(prompt)
        if num_chars < LONG:
            yield
            return
        if self.max_chars is not None and num_chars > self.max_chars:
            raise PromptTooLong(
                f"This model's maximum context length is {self._context_len} tokens, which cannot hold more "
                f"than {self.max_chars} characters, and the prompt is too long: it has {num_chars}",
                self._context_len,
            )
        with self._one_at_a_time:
            try:
                yield
            finally:
                _give_back_memory()


def _num_chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _num_chars(item) for key, item in value.items())
    return sum(map(_num_chars, value)) if isinstance(value, list | tuple) else 0


def _give_back_memory() -> None:
    if trim := getattr(_LIBRARY, "malloc_trim", None):  # glibc
        trim(0)
