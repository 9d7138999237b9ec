"""DraftLengthTuner: choose the number of draft tokens of a decode step from measured step times."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..engine.moving_mean import moving_mean

MAX_TOKENS = 128  # tokens of a step with drafts: more take longer than they save, and need memory for logits
MIN_GAIN = 1 / 0.95  # in tokens per second: what drafts must gain to be used
MAX_FACTOR = 1.25  # a step slowed down by another program counts as at most this many times the mean
MIN_PAUSE_SEC = 2.0  # between two trials of another number
PAUSE_FACTOR = 50.0  # pause / duration of a trial, so that trials take at most 2 % of the time

Expected = Callable[[int], float]  # number of drafts per sequence -> expected new tokens of the step


class DraftLengthTuner:
    """Chooses among 0, 1, 2, 4 and so on up to `max_drafts` the number with the most expected tokens/s.

    A number is first tried once the number below it has paid off. From time to time a neighbour of the best
    number is tried again, because the load of the machine changes.
    """

    def __init__(self, max_drafts: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.max_drafts = max_drafts
        self._clock = clock
        powers = (2**i for i in range(max_drafts.bit_length()) if 2**i < max_drafts)
        self._choices = [0, *powers, max_drafts]
        self._by_size: dict[tuple[int, int], StepTimes] = {}
        self._current: StepTimes | None = None
        self._began = 0.0

    def begin(self, num_rows: int, key_len: int, num_proposed: int, expected: Expected) -> int:
        """Return the number of drafts per sequence for a step that begins now.

        :param num_proposed: the largest number of drafts there are
        """
        limit = min(num_proposed, MAX_TOKENS // num_rows - 1)
        self._current = self._by_size.setdefault((num_rows, key_len.bit_length()), StepTimes())
        self._began = self._clock()
        return self._current.next([n for n in self._choices if n <= limit] or [0], expected, self._began)

    def end(self) -> None:
        """Record the duration of the step that ends now."""
        now = self._clock()
        assert self._current is not None
        self._current.record(now - self._began, now)


class StepTimes:
    """Mean duration of steps of one size, for each number of drafts."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._warm: set[int] = set()  # numbers whose first step, which may choose kernels, is over
        self._num = 0  # drafts of the current step
        self._is_trial = False
        self._next_trial_at = 0.0
        self._num_trials = 0

    def next(self, choices: list[int], expected: Expected, now: float) -> int:
        """Return one of `choices`, which rise from 0."""
        best = self._best(choices, expected)
        others = self._neighbours(choices, best, expected, now)
        self._is_trial = bool(others)
        self._num = others[self._num_trials % len(others)] if others else best
        return self._num

    def record(self, seconds: float, now: float) -> None:
        num = self._num
        if num not in self._warm:
            self._warm.add(num)
            return
        if self._is_trial:
            self._num_trials += 1
            self._next_trial_at = now + max(MIN_PAUSE_SEC, PAUSE_FACTOR * seconds)
            self._seconds[num] = seconds
        else:
            self._seconds[num] = moving_mean(self._seconds.get(num), seconds, max_factor=MAX_FACTOR)

    def _best(self, choices: list[int], expected: Expected) -> int:
        best = 0
        for num in choices[1:]:
            if num not in self._seconds:
                break
            if expected(num) * self._seconds[best] > MIN_GAIN * expected(best) * self._seconds[num]:
                best = num
        return best

    def _neighbours(self, choices: list[int], best: int, expected: Expected, now: float) -> list[int]:
        """Return the numbers worth a trial: the next lower one, and the next higher one if it may pay off."""
        if best not in self._seconds:
            return []
        i, is_due = choices.index(best), now >= self._next_trial_at
        neighbours = choices[i - 1 : i] if i and is_due else []
        for above in choices[i + 1 : i + 2]:
            if (is_due or above not in self._seconds) and expected(above) > MIN_GAIN * expected(best):
                neighbours.append(above)
        return neighbours
