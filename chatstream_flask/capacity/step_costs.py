"""Times of steps, interpolated between the points that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..config import check_int, check_number
from ..errors import ConfigError
from ..inference.padding import padded_key_len

MAX_SEC = 3600


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Times in seconds of the steps of one worker thread, while `num_threads` of them are busy.

    `decode` has points (rows, key length, seconds) for each number of rows with each key length. `prefill`
    has points (tokens, cached tokens before them, seconds); the last point has the most cached tokens.
    """

    num_threads: int
    decode: tuple[tuple[int, int, float], ...]
    prefill: tuple[tuple[int, int, float], ...]
    token_sec: float = 0.0  # additional time of a step per token that is sent to a client
    alone_factor: float = 1.0  # time of a step while the other threads are idle / while they are busy
    is_padded: bool = True  # whether all rows of a step cost as much as the longest
    packs_prompts: bool = False  # whether the prompts of a step are computed in one forward

    def __post_init__(self) -> None:
        check_int("num_threads", self.num_threads, 1, 64)
        check_number("token_sec", self.token_sec, 0, MAX_SEC)
        check_number("alone_factor", self.alone_factor, 0.01, 10)
        for name in ("decode", "prefill"):
            points = getattr(self, name)
            if not points or any(len(point) != 3 for point in points):
                raise ConfigError(f"{name} must be a list of one or more points of three numbers")
            for size, length, seconds in points:
                check_int(f"the first number in {name}", size, 1)
                check_int(f"the second number in {name}", length, 0)
                check_number(f"the third number in {name}", seconds, 0, MAX_SEC)
        if len(self.decode) != len({p[0] for p in self.decode}) * len({p[1] for p in self.decode}):
            raise ConfigError("decode must have one point for each number of rows with each key length")

    def scaled(self, factor: float, prefill_factor: float | None = None) -> StepCosts:
        """Return these costs multiplied by a factor.

        :param prefill_factor: for prefill; None: the same factor
        """
        prefill_factor = factor if prefill_factor is None else prefill_factor
        decode = tuple((rows, length, seconds * factor) for rows, length, seconds in self.decode)
        prefill = tuple(
            (tokens, cached, seconds * prefill_factor) for tokens, cached, seconds in self.prefill
        )
        return replace(self, decode=decode, prefill=prefill)

    def decode_sec(self, num_rows: int, key_lens: Sequence[int]) -> float:
        """Return the time of a decode step.

        :param num_rows: rows of the batch, including padding
        :param key_lens: key lengths of the rows that are not padding
        """
        key_len = padded_key_len(max(key_lens)) if self.is_padded else round(sum(key_lens) / len(key_lens))
        return _decode_sec(self.decode, num_rows, key_len)

    def prefill_sec(self, *parts: tuple[int, int]) -> float:
        """Return the time of a prefill step.

        :param parts: prompt chunks, each as (tokens, cached tokens before them); attention to cached tokens
            takes a time that is proportional to the product of both numbers
        """
        flat = [(tokens, seconds) for tokens, cached, seconds in self.prefill if not cached]
        tokens, cached, seconds = self.prefill[-1]
        rate = max(seconds - interpolate(flat, tokens), 0.0) / (tokens * cached) if cached else 0.0
        sizes = [num_tokens for num_tokens, _ in parts]
        forwards = [sum(sizes)] if self.packs_prompts else sizes
        before = sum(num_tokens * num_cached for num_tokens, num_cached in parts)
        return sum(interpolate(flat, size) for size in forwards) + rate * before


@lru_cache(maxsize=65536)
def _decode_sec(points: tuple[tuple[int, int, float], ...], num_rows: int, key_len: int) -> float:
    by_key_len: dict[int, list[tuple[int, float]]] = {}
    for rows, length, seconds in points:
        by_key_len.setdefault(length, []).append((rows, seconds))
    lines = [(length, interpolate(line, num_rows)) for length, line in by_key_len.items()]
    return interpolate(lines, key_len)


def interpolate(points: Sequence[tuple[int, float]], x: int) -> float:
    """Interpolate linearly between points; extrapolate beyond them, but never with a falling line."""
    points = sorted(points)
    if len(points) == 1:
        return points[0][1]
    right = next((i for i, (at, _) in enumerate(points) if at >= x and i), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    y = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    if x < x0:
        return min(max(y, 0.0), y0)
    return max(y, y1) if x > x1 else y
