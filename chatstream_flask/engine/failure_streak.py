"""Count of a runner's failures in a row, after which it has to show that it still works."""

from __future__ import annotations

# Failures in a row after which a runner is checked with a test prompt. A broken runner fails at every step,
# so that it ends few more requests before it is replaced.
MAX_FAILURES = 3


class FailureStreak:
    """Failures of one runner since its last success.

    A failure is a step that ended all replies, or one reply whose own prompt or logits failed. A success is a
    token from a decode step, a reply that ended normally, or a test prompt. A computed prompt alone is none:
    a runner may fail at the first decode step of every reply.
    """

    def __init__(self, *, follows_failing: bool = False) -> None:
        """Create a streak without failures.

        :param follows_failing: whether the runner replaces one that failed too often in a row
        """
        self.num_failures = 0
        self.follows_failing = follows_failing  # until the first success
        self.has_succeeded = False

    def __repr__(self) -> str:
        return f"<FailureStreak [{self.num_failures}/{MAX_FAILURES}]>"

    @property
    def is_too_long(self) -> bool:
        return self.num_failures >= MAX_FAILURES

    def record_failure(self) -> None:
        self.num_failures += 1

    def record_success(self) -> None:
        self.num_failures = 0
        self.follows_failing = False
        self.has_succeeded = True
