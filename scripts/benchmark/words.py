"""Tokens as text: token i is the word "ti"."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random


def text_of(token_ids: Iterable[int]) -> str:
    return " ".join(f"t{token_id}" for token_id in token_ids)


def tokens_of(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def random_tokens(random: Random, num_tokens: int, vocab_size: int) -> list[int]:
    return [random.randrange(1, vocab_size) for _ in range(num_tokens)]
