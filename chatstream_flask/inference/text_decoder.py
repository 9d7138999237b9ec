"""The text of a growing list of ids, for any tokenizer of transformers."""

from __future__ import annotations

from typing import Any, Protocol

from ..engine.detokenizer import TextDecoder

UNFINISHED = "\ufffd"  # what decoders show for bytes that are not, or not yet, a character
MAX_HELD = 7  # tokens: the mark itself in three bytes and a character in four; more are wrong bytes
MIN_WINDOW, MAX_WINDOW = 6, 12  # tokens; six make at least two characters, even of halves


class Decode(Protocol):
    def __call__(self, ids: list[int], *, skip_special_tokens: bool) -> str: ...


def make_text_decoder(tokenizer: Any, *, skip_special_tokens: bool = True) -> TextDecoder:
    """Its pieces joined are what `tokenizer.decode` gives for all ids, without clean-up.

    Two kinds of text cannot be taken back once shown, and stay: a whole character that wrong bytes after it
    make decode() forget (byte fallback), and the joints of tokenizers that rewrite them (CTRL's "@@").
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # Rust: the same text without the Python around it
        return WindowDecoder(backend.decode, skip_special_tokens=skip_special_tokens)

    def decode(ids: list[int], *, skip_special_tokens: bool) -> str:
        text: str = tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    return WindowDecoder(decode, skip_special_tokens=skip_special_tokens)


class WindowDecoder:
    """Decodes the last few ids only: `_shown` is the part of their text that was given out.

    tokenizers.decoders.DecodeStream does the same in Rust, but decodes ever more ids while it has nothing to
    show (wrong bytes, special tokens), fails on an "Invalid prefix", and cannot tell what it holds back.
    """

    def __init__(self, decode: Decode, *, skip_special_tokens: bool = True) -> None:
        self._decode = decode
        self._skips = skip_special_tokens
        self._ids: list[int] = []
        self._shown = ""
        self._num_held = 0  # newest ids, since the text last ended in a whole character

    def push(self, token_id: int) -> str:
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
        if len(self._ids) > MAX_WINDOW:
            self._slide(text)
        return piece

    def finish(self) -> str:
        piece = self._show(self._decode(self._ids, skip_special_tokens=self._skips), is_last=True)
        self._ids, self._shown, self._num_held = [], "", 0
        return piece

    def _show(self, text: str, *, is_last: bool) -> str:
        if not is_last:
            text = _certain(text)
        if not text.startswith(self._shown):  # wrong bytes made decode() forget a character: go on without it
            self._ids, self._shown = self._ids[-self._num_held :], ""
            return self._show(self._decode(self._ids, skip_special_tokens=self._skips), is_last=is_last)
        piece, self._shown = text[len(self._shown) :], text
        return piece

    def _slide(self, text: str) -> None:
        """Keeps the newest ids if they alone give the end of the text, but for a cut character in front."""
        ids = self._ids[-MIN_WINDOW:]
        tail = self._decode(ids, skip_special_tokens=self._skips)
        shown = _certain(tail)
        if shown and text.endswith(tail.lstrip(UNFINISHED) or tail):
            self._ids, self._shown = ids, shown

    def _is_special(self, token_id: int) -> bool:
        """A token that decode() leaves out: keeping it would only make the window longer."""
        return not self._decode([token_id], skip_special_tokens=self._skips) and bool(
            self._decode([token_id], skip_special_tokens=False)
        )


def _certain(text: str) -> str:
    """Without the one mark at its end that may stand for the start of a character."""
    return text.removesuffix(UNFINISHED)
