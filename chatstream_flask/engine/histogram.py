"""Histograms with fixed buckets."""

from __future__ import annotations

from bisect import bisect_left

# Upper bounds of the buckets, in seconds or tokens. They are those of vLLM, so that its dashboards and alerts
# can be reused, with shorter gaps and steps for small models.
SHORT_SEC = (0.001, 0.0025, 0.005)
GAP_SEC = (
    *(*SHORT_SEC, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 2.5, 5, 10, 20, 40, 80),
)
FIRST_TOKEN_SEC = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
REQUEST_SEC = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
NUM_TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))


class Histogram:
    """Counts values by bucket: `counts[i]` values are at most `bounds[i]` and above `bounds[i - 1]`.

    The last count is for values above all bounds. Written by one thread or under its owner's lock; any
    thread may read it.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram [{self.num} values, total {self.total:g}]>"

    @property
    def num(self) -> int:
        return sum(self.counts)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Histogram) -> None:
        """Add the counts of a histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
