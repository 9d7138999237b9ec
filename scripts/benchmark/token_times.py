"""TokenTimes: the time at which each token of a reply became text, recorded by the worker thread."""

from __future__ import annotations

import time
from itertools import pairwise


class TokenTimes:
    """A text filter that passes text through and records times; `at` is only appended to."""

    def __init__(self) -> None:
        self.at: list[float] = []  # time.perf_counter()

    def push(self, text: str) -> str:
        self.at.append(time.perf_counter())
        return text

    def finish(self) -> str:
        return ""

    def gaps(self, begin: float, end: float) -> list[float]:
        """Return the seconds between tokens, for all gaps that overlap this interval."""
        return [after - before for before, after in pairwise(self.at) if after > begin and before < end]
