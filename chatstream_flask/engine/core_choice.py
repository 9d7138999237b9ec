"""CoreChoice: how many cores a forward on CPU uses, by what the last ones took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

GAIN = 0.9  # times the seconds of the best: what another choice must be below
WEIGHT = 0.25  # of the newest forward in the mean
MAX_FACTOR = 3.0  # times the mean: what a forward counts at the most, so that not one alone decides
NUM_TRIED = 4  # forwards of a try in a row; the first of them only wakes the cores
MIN_PAUSE_SEC = 1.0  # between two tries of another choice
MAX_PAUSE_SEC = 300.0
NUM_WARM = 2  # first forwards of a size, which may choose kernels and are not counted
PAUSE_FACTOR = 50.0  # times what a try cost, so that tries take 2 % of the time at the most


class CoreChoice:
    """All that the thread may use, unless fewer are measured to be faster, now and then anew.

    The parts of one product wait for each other: at each layer for milliseconds, if another program holds a
    core. So on a busy machine one core can be many times faster than two.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most  # may be changed at any time, by the same thread
        self._clock = clock
        self._searches: dict[tuple[int, int, int], Search] = {}
        self._search: Search | None = None
        self._tried = 0
        self._began = 0.0

    def begin(self, num_tokens: int, key_len: int) -> int:
        """Cores for a forward of this size, which begins now."""
        key = (self.most, num_tokens.bit_length(), key_len.bit_length())
        if key not in self._searches:
            last = self._search
            first = last.best if last is not None and last.most == self.most else self.most
            self._searches[key] = Search(self.most, first)
        self._search = self._searches[key]
        self._began = self._clock()
        self._tried = self._search.next(self._began)
        return self._tried

    def end(self) -> None:
        now = self._clock()
        assert self._search is not None
        self._search.took(self._tried, now - self._began, now)


class Search:
    """The best of a number of cores, its half, its quarter and so on to one, for forwards of one size."""

    def __init__(self, most: int, first: int) -> None:
        self.most = most
        self.best = first
        self._num_warm = NUM_WARM
        self._choices = [most >> i for i in range(most.bit_length())]
        self._seconds: dict[int, float] = {}
        self._tried: list[float] = []  # seconds of the try that is going on
        self._pause_sec = MIN_PAUSE_SEC
        self._try_at = 0.0
        self._num_tries = 0

    def next(self, now: float) -> int:
        if self.best not in self._seconds or (now < self._try_at and not self._tried):
            return self.best
        return self._neighbour()

    def took(self, choice: int, seconds: float, now: float) -> None:
        if self._num_warm:
            self._num_warm -= 1
            return
        if choice == self.best:
            mean = self._seconds.get(choice, seconds)
            self._seconds[choice] = mean + WEIGHT * (min(seconds, MAX_FACTOR * mean) - mean)
        else:
            self._try(choice, seconds, now)
        fastest = min(self._seconds, key=lambda cores: self._seconds[cores])
        if self._seconds[fastest] < GAIN * self._seconds[self.best]:
            self.best = fastest
            self._pause_sec = MIN_PAUSE_SEC
            self._try_at = now + MIN_PAUSE_SEC

    def _try(self, choice: int, seconds: float, now: float) -> None:
        """Given up when it is far worse: then other programs hold the cores."""
        best_sec = self._seconds[self.best]
        self._tried.append(seconds)
        if len(self._tried) < NUM_TRIED and seconds < MAX_FACTOR * best_sec:
            return
        self._seconds[choice] = statistics.median(self._tried[1:] or self._tried)
        self._plan_next_try(sum(self._tried) - len(self._tried) * best_sec, now)
        self._tried = []

    def _plan_next_try(self, cost: float, now: float) -> None:
        """A choice that is far worse is tried more and more rarely."""
        self._num_tries += 1
        self._pause_sec = min(2 * self._pause_sec, MAX_PAUSE_SEC) if cost > 0 else MIN_PAUSE_SEC
        self._try_at = now + min(max(self._pause_sec, PAUSE_FACTOR * cost), MAX_PAUSE_SEC)

    def _neighbour(self) -> int:
        """In turn the one below and the one above."""
        at = self._choices.index(self.best)
        sides = [i for i in (at + 1, at - 1) if 0 <= i < len(self._choices)]
        return self._choices[sides[self._num_tries % len(sides)]] if sides else self.best
