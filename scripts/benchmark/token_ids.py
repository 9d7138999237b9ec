"""Random token ids, for parts that need no text."""

from __future__ import annotations

from random import Random


def random_tokens(random: Random, num_tokens: int, vocab_size: int) -> list[int]:
    return [random.randrange(1, vocab_size) for _ in range(num_tokens)]
