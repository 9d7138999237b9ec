"""DraftLengthTuner: how many tokens are proposed in a step, by what steps with and without drafts took."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_TOKENS = 128  # of a step with drafts: more take longer than they save, and their logits much memory
GAIN = 0.95  # times the tokens a second of another choice: still more than without it
WEIGHT = 0.25  # of the newest step in a mean
MAX_FACTOR = 1.25  # times the mean: what a step that another program held up counts as
MIN_PAUSE_SEC = 2.0  # between two tries of another choice
PAUSE_FACTOR = 50.0  # times what a try took, so that tries take 2 % of the time at the most

Expected = Callable[[int], float]  # tokens of a step with so many drafts for each sequence


class DraftLengthTuner:
    """None, 1, 2, 4 and so on up to `most`: the number that is expected to bring the most tokens a second.

    A number is first tried when the one below it pays. Now and then another one is tried anew, as what else
    the machine does changes.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most = most
        self._clock = clock
        self._choices = [0, *(2**i for i in range(most.bit_length()) if 2**i < most), most]
        self._paces: dict[tuple[int, int], Pace] = {}
        self._pace: Pace | None = None
        self._began = 0.0

    def begin(self, num_rows: int, key_len: int, num_proposed: int, expected: Expected) -> int:
        """Drafts for each sequence of a step of this size, which begins now; `num_proposed` at the most."""
        most = min(num_proposed, MAX_TOKENS // num_rows - 1)
        self._pace = self._paces.setdefault((num_rows, key_len.bit_length()), Pace())
        self._began = self._clock()
        return self._pace.next([num for num in self._choices if num <= most] or [0], expected, self._began)

    def end(self) -> None:
        now = self._clock()
        assert self._pace is not None
        self._pace.took(now - self._began, now)


class Pace:
    """Of steps of one size: what they took with each number of drafts."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # means
        self._begun: set[int] = set()  # numbers whose first step, which may choose kernels, was made
        self._num = 0  # of this step
        self._is_try = False
        self._try_at = 0.0
        self._num_tries = 0

    def next(self, choices: list[int], expected: Expected, now: float) -> int:
        """One of the rising `choices`, of which the first is 0."""
        best = self._best(choices, expected)
        others = self._others(choices, best, expected, now)
        self._is_try = bool(others)
        self._num = others[self._num_tries % len(others)] if others else best
        return self._num

    def took(self, seconds: float, now: float) -> None:
        num = self._num
        if num not in self._begun:
            self._begun.add(num)
            return
        mean = self._seconds.get(num, seconds)
        if self._is_try:
            self._num_tries += 1
            self._try_at = now + max(MIN_PAUSE_SEC, PAUSE_FACTOR * seconds)
            self._seconds[num] = seconds
        else:
            self._seconds[num] = mean + WEIGHT * (min(seconds, MAX_FACTOR * mean) - mean)

    def _best(self, choices: list[int], expected: Expected) -> int:
        best = 0
        for num in choices[1:]:
            if num not in self._seconds:
                break
            if GAIN * expected(num) * self._seconds[best] > expected(best) * self._seconds[num]:
                best = num
        return best

    def _others(self, choices: list[int], best: int, expected: Expected, now: float) -> list[int]:
        """What may be tried in place of the best: the next above it if it could pay, the next below it."""
        if best not in self._seconds:
            return []
        at, is_due = choices.index(best), now >= self._try_at
        others = choices[at - 1 : at] if at and is_due else []
        for above in choices[at + 1 : at + 2]:
            if (is_due or above not in self._seconds) and GAIN * expected(above) > expected(best):
                others.append(above)
        return others
