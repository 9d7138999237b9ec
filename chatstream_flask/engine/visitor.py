"""A visitor of the queue: what one of them has in work, and the tokens it has used lately."""

from __future__ import annotations

import math

from ..config import NO_LIMITS, VisitorLimits


class Visitor:
    """Belongs to the queue, whose lock guards it.

    Tokens are a leaky bucket: `max_tokens_per_minute` may be used at once, as many come back in a minute.
    """

    def __init__(self, limits: VisitorLimits = NO_LIMITS, num_running: int = 0) -> None:
        self.limits = limits
        self.num_running = num_running
        self.num_waiting = 0  # places that do not run yet
        self._used = 0.0  # tokens, as they were at:
        self._counted_at = 0.0

    def __repr__(self) -> str:
        return f"<Visitor [{self.num_running} running, {self.num_waiting} waiting]>"

    @property
    def may_run(self) -> bool:
        """One more."""
        return self.limits.max_running is None or self.num_running < self.limits.max_running

    @property
    def num_startable(self) -> int:
        """How many of those that wait may run now."""
        if self.limits.max_running is None:
            return self.num_waiting
        return min(self.num_waiting, max(self.limits.max_running - self.num_running, 0))

    def is_idle(self, now: float) -> bool:
        """Nothing of it need be remembered."""
        return not self.num_waiting and not self.num_running and not self._leaked(now)

    def use(self, num_tokens: int, now: float) -> None:
        """Negative: they were not needed after all."""
        if self.limits.max_tokens_per_minute is not None:
            self._used = max(self._leaked(now) + num_tokens, 0.0)
            self._counted_at = now

    def wait_sec(self, now: float) -> int:
        """Whole seconds until tokens come back; 0: there are some."""
        limit = self.limits.max_tokens_per_minute
        if limit is None or self._leaked(now) < limit:
            return 0
        return max(math.ceil((self._leaked(now) - limit + 1) * 60 / limit), 1)

    def _leaked(self, now: float) -> float:
        limit = self.limits.max_tokens_per_minute
        return 0.0 if limit is None else max(self._used - (now - self._counted_at) * limit / 60, 0.0)
