"""The bytes of tokens that are only a part of a character."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # byte fallback of SentencePiece


def part_of_character(tokenizer: Any, token_id: int) -> bytes | None:
    """Return the bytes of a token that has no text of its own; None if they cannot be told."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if not isinstance(token, str):
        return None
    if byte := BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(byte[1])
    values = [_byte_of_character().get(char) for char in token]
    known = [value for value in values if value is not None]
    return bytes(known) if len(known) == len(values) else None


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable characters of Latin-1 stand for themselves, the other bytes, in order, for U+0100 and up: the
    table of GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes_to_unicode).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
