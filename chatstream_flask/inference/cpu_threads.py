"""ThreadTuner: how many cores a forward on CPU uses, by what the last ones took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

GAIN = 0.9  # times the seconds of the best: what another choice must be below
WEIGHT = 0.25  # of the newest forward in the mean
MAX_FACTOR = 3.0  # times the mean: what a forward counts at the most, so that not one alone decides
NUM_TRIED = 4  # forwards of a try in a row; the first of them only wakes the cores
MIN_PAUSE_SEC = 1.0  # between two tries of another choice
MAX_PAUSE_SEC = 300.0  # a choice that stays worse is tried more and more rarely
NUM_WARM = 2  # first forwards of a size, which may choose kernels and are not counted
PAUSE_FACTOR = 50.0  # times what a try cost: the pause before any other


class ThreadTuner:
    """All that the thread may use, unless fewer are measured to be faster, now and then anew.

    The parts of one product wait for each other: at each layer for milliseconds, if another program holds a
    core. So on a busy machine one core can be many times faster than two.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most  # may be changed at any time, by the same thread
        self._clock = clock
        self._searches: dict[tuple[int, int, int], Search] = {}
        self._search: Search | None = None
        self._chosen = 0
        self._began = 0.0
        self._try_at = 0.0  # of any size, so that all tries together take 2 % of the time

    def begin(self, num_tokens: int, key_len: int) -> int:
        """Cores for a forward of this size, which begins now."""
        key = (self.most, num_tokens.bit_length(), key_len.bit_length())
        if key not in self._searches:
            last = self._search
            first = last.best if last is not None and last.most == self.most else self.most
            self._searches[key] = Search(self.most, first)
        self._search = self._searches[key]
        self._began = self._clock()
        self._chosen = self._search.next(self._began, may_try=self._began >= self._try_at)
        return self._chosen

    def end(self) -> None:
        now = self._clock()
        assert self._search is not None
        lost_sec = self._search.took(self._chosen, now - self._began, now)
        self._try_at = max(self._try_at, now + PAUSE_FACTOR * lost_sec)


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

    def next(self, now: float, *, may_try: bool) -> int:
        is_due = may_try and now >= self._try_at and self.best in self._seconds
        return self._neighbour() if self._tried or is_due else self.best

    def took(self, choice: int, seconds: float, now: float) -> float:
        """Seconds that were lost to a try which is over now."""
        if self._num_warm:
            self._num_warm -= 1
            return 0.0
        lost_sec = 0.0
        if choice == self.best:
            mean = self._seconds.get(choice, seconds)
            self._seconds[choice] = mean + WEIGHT * (min(seconds, MAX_FACTOR * mean) - mean)
        else:
            lost_sec = self._try(choice, seconds, now)
        fastest = min(self._seconds, key=lambda cores: self._seconds[cores])
        if self._seconds[fastest] < GAIN * self._seconds[self.best]:
            self.best = fastest
            self._pause_sec = MIN_PAUSE_SEC
            self._try_at = now + MIN_PAUSE_SEC
        return lost_sec

    def _try(self, choice: int, seconds: float, now: float) -> float:
        """Given up when it is far worse: then other programs hold the cores."""
        best_sec = self._seconds[self.best]
        self._tried.append(seconds)
        if len(self._tried) < NUM_TRIED and seconds < MAX_FACTOR * best_sec:
            return 0.0
        self._seconds[choice] = statistics.median(self._tried[1:] or self._tried)
        lost_sec = max(sum(self._tried) - len(self._tried) * best_sec, 0.0)
        self._tried = []
        self._num_tries += 1
        self._pause_sec = min(2 * self._pause_sec, MAX_PAUSE_SEC) if lost_sec else MIN_PAUSE_SEC
        self._try_at = now + self._pause_sec
        return lost_sec

    def _neighbour(self) -> int:
        """In turn the one below and the one above."""
        at = self._choices.index(self.best)
        sides = [i for i in (at + 1, at - 1) if 0 <= i < len(self._choices)]
        return self._choices[sides[self._num_tries % len(sides)]] if sides else self.best
