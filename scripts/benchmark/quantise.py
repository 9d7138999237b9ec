"""Matrices in llama.cpp's formats Q4_K and Q6_K, which the gguf package can only read.

Blocks of 256 numbers as ggml-common.h has them, each number rounded to the nearest; llama.cpp searches for
better scales, at the same size and speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCK = 256


def q4_k(matrix: Array) -> Array:
    """Return rows of bytes: per block two float16, 8 scales and 8 minima of 6 bits, and 4 bits a number."""
    groups = matrix.astype(np.float32).reshape(-1, 8, 32)
    lowest = np.minimum(groups.min(axis=2), 0)
    scales, minima = (groups.max(axis=2) - lowest) / 15, -lowest
    scale, scale_codes = _coded(scales, 63)
    minimum, minimum_codes = _coded(minima, 63)
    step = scale[:, None] * scale_codes
    shifted = groups + (minimum[:, None] * minimum_codes)[:, :, None]
    codes = np.clip(np.rint(_divided(shifted, step[:, :, None])), 0, 15).astype(np.uint8)
    pairs = codes.reshape(-1, 4, 2, 32)
    return _rows(
        matrix,
        [
            _float16_bytes(scale),
            _float16_bytes(minimum),
            _packed_6_bits(scale_codes.astype(np.uint8), minimum_codes.astype(np.uint8)),
            (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128),
        ],
    )


def q6_k(matrix: Array) -> Array:
    """Return rows of bytes: per block 6 bits a number (4 and 2), 16 scales of 8 bits, and a float16."""
    groups = matrix.astype(np.float32).reshape(-1, 16, 16)
    scale, scale_codes = _coded(np.abs(groups).max(axis=2) / 31, 127)
    step = scale[:, None] * scale_codes
    codes = np.clip(np.rint(_divided(groups, step[:, :, None])), -32, 31).astype(np.int8) + 32
    quarters = codes.astype(np.uint8).reshape(-1, 2, 4, 32)  # halves of a block, quarters of a half
    low, high = quarters & 15, quarters >> 4
    return _rows(
        matrix,
        [
            np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], 2).reshape(
                -1, 128
            ),
            (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64),
            scale_codes.astype(np.int8).view(np.uint8),
            _float16_bytes(scale),
        ],
    )


def _coded(values: Array, highest: int) -> tuple[Array, Array]:
    """Return one step per block, as float16 keeps it, and each value as a multiple of it."""
    step = (values.max(axis=1) / highest).astype(np.float16).astype(np.float32)
    return step, np.clip(np.rint(_divided(values, step[:, None])), 0, highest)


def _divided(numbers: Array, steps: Array) -> Array:
    return np.divide(numbers, steps, out=np.zeros_like(numbers), where=steps != 0)


def _packed_6_bits(scales: Array, minima: Array) -> Array:
    """Return 8 scales and 8 minima in 12 bytes."""
    return np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            minima[:, :4] | minima[:, 4:] >> 4 << 6,
            scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4,
        ],
        axis=1,
    )


def _float16_bytes(values: Array) -> Array:
    return values.astype(np.float16).reshape(-1, 1).view(np.uint8)


def _rows(matrix: Array, parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=1).reshape(matrix.shape[0], -1)
