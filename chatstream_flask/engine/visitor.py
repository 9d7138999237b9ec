"""Visitors: what each one has in progress, and the limits that hold for each."""

from __future__ import annotations

import math

from ..config import NO_LIMITS, VisitorLimits
from ..errors import TooManyRequests


class Visitor:
    """The party that per-visitor limits count for. The queue owns it, and the queue's lock guards it.

    Tokens are counted in a leaky bucket: `max_tokens_per_minute` may be used at once, and as many are
    regained per minute.
    """

    def __init__(self, limits: VisitorLimits = NO_LIMITS, num_running: int = 0) -> None:
        self.limits = limits
        self.num_running = num_running
        self.num_waiting = 0  # reservations that do not run yet, submitted or not
        self._used_tokens = 0.0  # as of `_counted_at`
        self._counted_at = 0.0

    def __repr__(self) -> str:
        return f"<Visitor [{self.num_running} running, {self.num_waiting} waiting]>"

    @property
    def can_run(self) -> bool:
        """Whether one more of its requests may run."""
        return self.limits.max_running is None or self.num_running < self.limits.max_running

    @property
    def num_startable(self) -> int:
        """How many of its waiting requests may run now."""
        if self.limits.max_running is None:
            return self.num_waiting
        return min(self.num_waiting, max(self.limits.max_running - self.num_running, 0))

    def is_idle(self, now: float) -> bool:
        """Return whether the visitor can be forgotten without a difference."""
        return not self.num_waiting and not self.num_running and not self._current_tokens(now)

    def use_tokens(self, num: int, now: float) -> None:
        """Count tokens as used; a negative number gives back tokens that were counted but not needed."""
        if self.limits.max_tokens_per_minute is not None:
            self._used_tokens = max(self._current_tokens(now) + num, 0.0)
            self._counted_at = now

    def check_tokens(self, now: float) -> None:
        """Raise TooManyRequests if its tokens of this minute are used up."""
        limit = self.limits.max_tokens_per_minute
        if limit is not None and (used := self._current_tokens(now)) >= limit:
            raise out_of_tokens(limit, used)

    def check_waiting(self, num_free_slots: int) -> None:
        """Raise TooManyRequests if one more request could neither start at once nor wait.

        :param num_free_slots: free slots that the waiting requests of other visitors leave
        """
        limits = self.limits
        if limits.max_waiting is None:
            return
        if limits.max_running is not None:
            num_free_slots = min(num_free_slots, limits.max_running - self.num_running)
        if self.num_waiting + 1 - max(num_free_slots, 0) <= limits.max_waiting:
            return
        raise too_many_waiting(limits, self.num_running, self.num_waiting)

    def _current_tokens(self, now: float) -> float:
        """Return the used tokens that have not been regained yet."""
        limit = self.limits.max_tokens_per_minute
        return 0.0 if limit is None else max(self._used_tokens - (now - self._counted_at) * limit / 60, 0.0)


def out_of_tokens(limit: int, num_used: float) -> TooManyRequests:
    """Return the refusal of a visitor that has used its tokens of this minute."""
    wait_sec = max(math.ceil((num_used - limit + 1) * 60 / limit), 1)
    message = f"you have used your limit of {limit} tokens per minute; try again in {wait_sec} s"
    return TooManyRequests(message, wait_sec, "visitor_tokens")


def too_many_waiting(limits: VisitorLimits, num_running: int, num_waiting: int) -> TooManyRequests:
    """Return the refusal of a visitor whose request could neither start at once nor wait."""
    if not limits.max_waiting and limits.max_running is not None and num_running >= limits.max_running:
        message = f"you already have {num_running} running replies, the limit for one visitor"
        return TooManyRequests(f"{message}; try again later", reason="visitor_running")
    message = f"you already have {num_waiting} waiting requests; the limit is {limits.max_waiting}"
    return TooManyRequests(f"{message}; try again later", reason="visitor_waiting")
