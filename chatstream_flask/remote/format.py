"""The format of a reply that an engine over HTTP generates."""

from __future__ import annotations

import json
from typing import Any

from ..engine.reasoning_matcher import ReasoningMatcher
from ..engine.sequence import Sequence


class FormatOfEngine:
    """Matcher that allows everything: the engine holds the format."""

    num_bytes = 0

    def accept(self, token_id: int) -> bool:
        return False

    def write_mask(self, address: int, num_bytes: int) -> bool:
        return True


def schema_of(grammar: str) -> dict[str, Any] | None:
    """Return the JSON schema that a grammar of `grammar.schema` was made of; None if it is none."""
    try:
        match json.loads(grammar):
            case {"grammars": [{"json_schema": dict(schema)}]}:
                return {name: value for name, value in schema.items() if name != "x-guidance"}
    except ValueError:
        pass
    return None


def is_held(sequence: Sequence) -> bool:
    """Return whether the format holds for the next token: not within reasoning, nor where that may begin."""
    matcher = sequence.grammar_matcher
    return matcher is not None and not sequence.is_reasoning and next_opening_id(sequence) is None


def next_opening_id(sequence: Sequence) -> int | None:
    """Return the token with which reasoning would begin or go on to begin; None if it cannot now."""
    matcher = sequence.grammar_matcher
    return matcher.next_opening_id if isinstance(matcher, ReasoningMatcher) else None
