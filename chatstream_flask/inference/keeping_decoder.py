"""Decoding in which some special tokens stay in the text."""

from __future__ import annotations

from collections.abc import Mapping

from ..engine.detokenizer import TextDecoder


class KeepingDecoder:
    """Adds the texts of some tokens to what a decoder returns, which leaves special tokens out."""

    def __init__(self, decoder: TextDecoder, kept: Mapping[int, str]) -> None:
        self._decoder = decoder
        self._kept = kept

    def push(self, token_id: int) -> str:
        text = self._kept.get(token_id)
        return self._decoder.push(token_id) if text is None else self._decoder.finish() + text

    def finish(self) -> str:
        return self._decoder.finish()
