"""Tokens that are parts of characters have bytes, and offsets in the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatstream_flask import demo_model
from chatstream_flask.model_source.token_bytes import part_of_character
from chatstream_flask.openai_api.token_text import TextOffsets

TEXT = "a \U0001f600, \u6f22\u5b57"


class Tokens:
    """The texts and bytes of a tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def token_text(self, token_id: int) -> str:
        text: str = self.tokenizer.decode([token_id])
        return text

    def token_bytes(self, token_id: int) -> bytes | None:
        return part_of_character(self.tokenizer, token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(token_ids))
        return text


class SpacedTokens:
    """Each token is a space and a letter; like SentencePiece's, a text does not begin with the space."""

    def token_text(self, token_id: int) -> str:
        return f" {chr(token_id)}"

    def token_bytes(self, token_id: int) -> bytes:
        return self.token_text(token_id).encode()

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(self.token_text, token_ids)).removeprefix(" ")


def byte_level() -> Any:
    return AutoTokenizer.from_pretrained(demo_model.PATH)


def byte_fallback() -> Any:
    """Return a tokenizer that has some characters, and the bytes of all others."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256, ",": 257, " ": 258}
    backend = Tokenizer(BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_the_bytes_of_all_tokens_are_those_of_the_text(make: Any) -> None:
    tokens = Tokens(make())
    ids = tokens.tokenizer.encode(TEXT, add_special_tokens=False)
    known = [tokens.token_bytes(token_id) or tokens.token_text(token_id).encode() for token_id in ids]
    assert b"".join(known).decode() == TEXT
    assert max(map(len, known)) < len(TEXT.encode()) and len(ids) > len(TEXT), "characters are in pieces"


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_a_token_begins_where_its_character_does(make: Any) -> None:
    tokens = Tokens(make())
    offsets, text = TextOffsets(tokens), b""
    for token_id in tokens.tokenizer.encode(TEXT, add_special_tokens=False):
        assert offsets.next(token_id) == len(text.decode(errors="ignore"))
        text += tokens.token_bytes(token_id) or tokens.token_text(token_id).encode()


def test_a_prompt_begins_without_the_space_of_its_first_token() -> None:
    prompt, reply = TextOffsets(SpacedTokens(), begins_text=True), TextOffsets(SpacedTokens())
    ids = [ord(char) for char in "abc"]
    assert SpacedTokens().decode(ids) == "a b c"
    assert [prompt.next(token_id) for token_id in ids] == [0, 1, 3]
    assert [reply.next(token_id) for token_id in ids] == [0, 2, 4]


def test_the_bytes_of_a_token_that_is_unknown_cannot_be_told() -> None:
    assert part_of_character(byte_fallback(), 10_000) is None
