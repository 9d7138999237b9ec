"""Padded sizes: rounded up, so that the shapes of forward passes repeat. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

KEY_LEN_STEP = 64  # positions


def padded_key_len(num_tokens: int) -> int:
    """Round a number of KV cache positions up to a multiple of KEY_LEN_STEP."""
    return round_up(num_tokens, KEY_LEN_STEP)


def padded_size(needed: int, sizes: Sequence[int], step: int) -> int:
    """Return the smallest of `sizes` that is at least `needed`; beyond them, the next multiple of `step`."""
    return next((size for size in sizes if size >= needed), round_up(needed, step))


def round_up(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `number`."""
    return -(-number // step) * step
