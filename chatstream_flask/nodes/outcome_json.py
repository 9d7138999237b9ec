"""Outcomes as JSON, for readers on other servers."""

from __future__ import annotations

import json
from dataclasses import asdict

from .. import errors
from ..engine.outcome import FinishReason, Outcome


def to_json(outcome: Outcome) -> str:
    fields = asdict(outcome)
    fields["finish_reason"] = outcome.finish_reason.value
    fields["error_class"] = outcome.error_class.__name__
    return json.dumps(fields)


def from_json(text: str) -> Outcome:
    """Return the outcome that `to_json` wrote."""
    fields = json.loads(text)
    fields["finish_reason"] = FinishReason(fields["finish_reason"])
    fields["error_class"] = getattr(errors, fields["error_class"])
    return Outcome(**fields)
