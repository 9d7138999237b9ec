"""The outcome of a reply that several generations have written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..engine.outcome import Outcome


def total_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a reply from those of its generations."""
    first, last = outcomes[0], outcomes[-1]
    if len(outcomes) == 1:
        return last
    add = partial(_sum, outcomes)
    return replace(
        last,
        prompt_tokens=add("prompt_tokens"),
        cached_tokens=add("cached_tokens"),
        completion_tokens=add("completion_tokens"),
        reasoning_tokens=add("reasoning_tokens"),
        is_started=True,
        queue_sec=first.queue_sec,
        first_token_sec=first.first_token_sec,
    )


def _sum(outcomes: Sequence[Outcome], name: str) -> int:
    return sum(getattr(outcome, name) for outcome in outcomes)
