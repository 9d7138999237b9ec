"""Load profiles, and the arrival times of visitors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

SPIKE = (0.4, 0.6)  # start and end, as fractions of the run
BEFORE_SPIKE = 0.25  # load outside the spike, relative to its peak

PROFILES: dict[str, Callable[[float], float]] = {  # elapsed fraction of the run -> fraction of the peak load
    "steady": lambda over: 1.0,
    "ramp": lambda over: over,
    "spike": lambda over: 1.0 if SPIKE[0] <= over < SPIKE[1] else BEFORE_SPIKE,
}


def poisson_arrivals(
    rate: float, profile: Callable[[float], float], duration_sec: float, rng: random.Random
) -> Iterator[float]:
    """Yield the times of an inhomogeneous Poisson process, in seconds; `rate` is its peak, per second.

    By thinning: arrivals are drawn at the peak rate, and each is kept with the probability `profile(time)`.
    """
    at = rng.expovariate(rate)
    while at < duration_sec:
        if rng.random() < profile(at / duration_sec):
            yield at
        at += rng.expovariate(rate)
