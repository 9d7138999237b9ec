"""Moving means of measured seconds, for tuners that learn while they serve."""

from __future__ import annotations

import math

WEIGHT = 0.25  # of the newest value


def moving_mean(mean: float | None, newest: float, *, max_factor: float = math.inf) -> float:
    """Return the exponential moving mean that includes `newest`.

    :param mean: None or 0 before the first value
    :param max_factor: a value counts as at most this many times the mean, so that one outlier decides nothing
    """
    if not mean:
        return newest
    return mean + WEIGHT * (min(newest, max_factor * mean) - mean)
