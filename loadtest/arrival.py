"""How many visitors come, or are there, at each time of a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

SPIKE = (0.4, 0.6)  # its beginning and end, as shares of the run
BEFORE_SPIKE = 0.25  # of the height of the spike

PROFILES: dict[str, Callable[[float], float]] = {  # share of the run that is over -> share of the load
    "steady": lambda over: 1.0,
    "ramp": lambda over: over,
    "spike": lambda over: 1.0 if SPIKE[0] <= over < SPIKE[1] else BEFORE_SPIKE,
}


def poisson_arrivals(
    rate: float, profile: Callable[[float], float], duration_sec: float, rng: random.Random
) -> Iterator[float]:
    """Seconds since the beginning at which a visitor comes; `rate` is the highest, per second.

    Thinning: of arrivals at the highest rate each is kept with the share that the profile has then.
    """
    at = rng.expovariate(rate)
    while at < duration_sec:
        if rng.random() < profile(at / duration_sec):
            yield at
        at += rng.expovariate(rate)
