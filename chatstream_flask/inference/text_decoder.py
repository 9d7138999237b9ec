"""Incremental decoding: the text of a growing list of token ids, for any tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..engine.detokenizer import TextDecoder
from ..engine.request import GenerationRequest
from .keeping_decoder import KeepingDecoder

UNFINISHED = "\ufffd"  # decoders return it for bytes that are not, or not yet, a character
MAX_HELD = 7  # tokens: U+FFFD itself in 3 bytes, then a character in 4; more bytes are invalid
MAX_CUT = 3  # tokens of a character that is not finished: it has four bytes at most
MIN_WINDOW, MAX_WINDOW = 6, 12  # tokens; six are two characters or more, even if each is half of one


class Decode(Protocol):
    """The `decode` method of a tokenizer."""

    def __call__(self, ids: list[int], *, skip_special_tokens: bool) -> str: ...


def make_text_decoder(
    tokenizer: Any, *, skip_special_tokens: bool = True, follows_text: bool = False
) -> TextDecoder:
    """Return a decoder whose pieces, joined, equal `tokenizer.decode` of all ids without clean-up.

    There are two exceptions, because text that was returned cannot be taken back: a whole character that
    decode() drops when invalid bytes follow it (byte fallback), and word boundaries that a tokenizer rewrites
    later (CTRL's "@@"). A character that is not finished at the end is left out.

    :param follows_text: decode as in mid-text, where a first word keeps its space
    """
    decoder = _text_decoder(tokenizer, skip_special_tokens)
    if follows_text:
        for token_id in tokenizer.encode("a", add_special_tokens=False):
            decoder.push(token_id)
    return decoder


def _text_decoder(tokenizer: Any, skip_special_tokens: bool) -> WindowDecoder:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the Rust tokenizer returns the same text without the overhead of Python
        return WindowDecoder(
            backend.decode,
            skip_special_tokens=skip_special_tokens,
            is_known=lambda token_id: backend.id_to_token(token_id) is not None,
        )

    def decode(ids: list[int], *, skip_special_tokens: bool) -> str:
        text: str = tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    return WindowDecoder(decode, skip_special_tokens=skip_special_tokens)


def reply_decoder(tokenizer: Any, request: GenerationRequest) -> TextDecoder:
    """Return a decoder for the reply to a request."""
    skips = not request.shows_special_tokens
    decoder = make_text_decoder(tokenizer, skip_special_tokens=skips, follows_text=request.follows_text)
    return KeepingDecoder(decoder, request.kept_tokens) if skips and request.kept_tokens else decoder


class WindowDecoder:
    """Decodes only the last few ids; `_shown` is the part of their text that has been returned.

    tokenizers.decoders.DecodeStream does the same in Rust, but decodes more and more ids while it has nothing
    to return (invalid bytes, special tokens), fails with "Invalid prefix", and cannot flush.
    """

    def __init__(
        self,
        decode: Decode,
        *,
        skip_special_tokens: bool = True,
        is_known: Callable[[int], bool] = lambda token_id: True,
    ) -> None:
        self._decode = decode
        self._is_known = is_known  # ids of padding rows in the model's head are not; decode() leaves them out
        self._skips = skip_special_tokens
        self._ids: list[int] = []
        self._shown = ""
        self._num_held = 0  # ids since the text last ended in a whole character

    def push(self, token_id: int) -> str:
        if not self._is_known(token_id):
            return ""
        self._ids.append(token_id)
        self._num_held += 1
        text = self._decode(self._ids, skip_special_tokens=self._skips)
        is_whole = not text.endswith(UNFINISHED)
        if not is_whole and self._num_held <= MAX_HELD:
            return ""
        piece = self._show(text, is_last=False)
        if is_whole:
            self._num_held = 0
        if not piece and self._is_special(token_id):
            self._ids.pop()
            self._num_held = max(0, self._num_held - 1)
        if len(self._ids) > MAX_WINDOW:
            self._slide(text)
        return piece

    def finish(self) -> str:
        piece = self._show(self._decode(self._ids, skip_special_tokens=self._skips), is_last=True)
        if self._num_held <= MAX_CUT:
            piece = piece.rstrip(UNFINISHED)
        self._ids, self._shown, self._num_held = [], "", 0
        return piece

    def _show(self, text: str, *, is_last: bool) -> str:
        if not is_last:
            text = _certain(text)
        if not text.startswith(self._shown):
            # Invalid bytes made decode() drop a character that was returned: continue with the ids after it.
            self._ids, self._shown = self._ids[-self._num_held :], ""
            return self._show(self._decode(self._ids, skip_special_tokens=self._skips), is_last=is_last)
        piece, self._shown = text[len(self._shown) :], text
        return piece

    def _slide(self, text: str) -> None:
        """Keep only the newest ids if they decode to the end of the text, except a cut first character."""
        ids = self._ids[-MIN_WINDOW:]
        tail = self._decode(ids, skip_special_tokens=self._skips)
        shown = _certain(tail)
        if shown and text.endswith(tail.lstrip(UNFINISHED) or tail):
            self._ids, self._shown = ids, shown

    def _is_special(self, token_id: int) -> bool:
        """Return whether decode() leaves this token out; keeping it would only make the window longer."""
        return not self._decode([token_id], skip_special_tokens=self._skips) and bool(
            self._decode([token_id], skip_special_tokens=False)
        )


def _certain(text: str) -> str:
    """Return the text without a U+FFFD at its end, which may stand for the start of a character."""
    return text.removesuffix(UNFINISHED)
