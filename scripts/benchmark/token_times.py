"""TokenTimes: when each token of a reply became text, written down by the generation thread itself."""

from __future__ import annotations

import time
from itertools import pairwise


class TokenTimes:
    """A text filter that changes nothing. `at` only grows."""

    def __init__(self) -> None:
        self.at: list[float] = []  # time.perf_counter()

    def push(self, text: str) -> str:
        self.at.append(time.perf_counter())
        return text

    def finish(self) -> str:
        return ""

    def gaps(self, begin: float, end: float) -> list[float]:
        """Seconds between tokens, of the gaps that lie at least partly within these times."""
        return [after - before for before, after in pairwise(self.at) if after > begin and before < end]
