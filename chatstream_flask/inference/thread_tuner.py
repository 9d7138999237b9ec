"""ThreadTuner: choose the number of CPU threads of a forward pass from measured times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from ..engine.moving_mean import moving_mean

GAIN = 0.9  # another number is taken if its seconds are below this many times those of the best
MAX_FACTOR = 3.0  # a forward pass counts as at most this many times the mean
NUM_TRIED = 4  # consecutive forward passes of a trial; the first one only wakes the cores
MIN_PAUSE_SEC = 1.0  # between two trials of a size
MAX_PAUSE_SEC = 300.0  # the pause doubles up to this while trials find nothing better
NUM_WARM = 2  # first forward passes of a size, which may choose kernels and are not counted
PAUSE_FACTOR = 50.0  # pause after a trial of any size / time lost by it, so that trials cost at most 2 %


class ThreadTuner:
    """Uses all threads unless fewer are measured to be faster; measures again from time to time.

    The threads of one matrix product wait for each other: if another program holds a core, for milliseconds
    in each layer. On a busy machine one thread can therefore be many times faster than two.
    """

    def __init__(self, max_threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.max_threads = max_threads  # may be changed at any time by the same thread
        self._clock = clock
        self._searches: dict[tuple[int, int, int], Search] = {}
        self._search: Search | None = None
        self._chosen = 0
        self._began = 0.0
        self._next_trial_at = 0.0  # for all sizes

    def begin(self, num_tokens: int, key_len: int) -> int:
        """Return the number of threads for a forward pass of this size that begins now."""
        key = (self.max_threads, num_tokens.bit_length(), key_len.bit_length())
        if key not in self._searches:
            last = self._search
            is_same_max = last is not None and last.max_threads == self.max_threads
            first = last.best if last is not None and is_same_max else self.max_threads
            self._searches[key] = Search(self.max_threads, first)
        self._search = self._searches[key]
        self._began = self._clock()
        self._chosen = self._search.next(self._began, may_try=self._began >= self._next_trial_at)
        return self._chosen

    def end(self) -> None:
        """Record the duration of the forward pass that ends now."""
        now = self._clock()
        assert self._search is not None
        lost_sec = self._search.record(self._chosen, now - self._began, now)
        self._next_trial_at = max(self._next_trial_at, now + PAUSE_FACTOR * lost_sec)


class Search:
    """Search for the best of `max_threads`, a half, a quarter and so on, for forward passes of one size."""

    def __init__(self, max_threads: int, first: int) -> None:
        self.max_threads = max_threads
        self.best = first
        self._num_warm = NUM_WARM
        self._choices = [max_threads >> i for i in range(max_threads.bit_length())]
        self._seconds: dict[int, float] = {}
        self._trial: list[float] = []  # seconds of the current trial
        self._pause_sec = MIN_PAUSE_SEC
        self._next_trial_at = 0.0
        self._num_trials = 0

    def next(self, now: float, *, may_try: bool) -> int:
        is_due = may_try and now >= self._next_trial_at and self.best in self._seconds
        return self._neighbour() if self._trial or is_due else self.best

    def record(self, choice: int, seconds: float, now: float) -> float:
        """Return the seconds lost by a trial that ends with this forward pass."""
        if self._num_warm:
            self._num_warm -= 1
            return 0.0
        lost_sec = 0.0
        if choice == self.best:
            self._seconds[choice] = moving_mean(self._seconds.get(choice), seconds, max_factor=MAX_FACTOR)
        else:
            lost_sec = self._record_trial(choice, seconds, now)
        fastest = min(self._seconds, key=lambda num_threads: self._seconds[num_threads])
        if self._seconds[fastest] < GAIN * self._seconds[self.best]:
            self.best = fastest
            self._pause_sec = MIN_PAUSE_SEC
            self._next_trial_at = now + MIN_PAUSE_SEC
        return lost_sec

    def _record_trial(self, choice: int, seconds: float, now: float) -> float:
        """Give the trial up early if it is far slower: then other programs hold the cores."""
        best_sec = self._seconds[self.best]
        self._trial.append(seconds)
        if len(self._trial) < NUM_TRIED and seconds < MAX_FACTOR * best_sec:
            return 0.0
        self._seconds[choice] = statistics.median(self._trial[1:] or self._trial)
        lost_sec = max(sum(self._trial) - len(self._trial) * best_sec, 0.0)
        self._trial = []
        self._num_trials += 1
        self._pause_sec = min(2 * self._pause_sec, MAX_PAUSE_SEC) if lost_sec else MIN_PAUSE_SEC
        self._next_trial_at = now + self._pause_sec
        return lost_sec

    def _neighbour(self) -> int:
        """Return the next lower and the next higher number in turn."""
        i = self._choices.index(self.best)
        neighbours = [j for j in (i + 1, i - 1) if 0 <= j < len(self._choices)]
        return self._choices[neighbours[self._num_trials % len(neighbours)]] if neighbours else self.best
