"""A record as text: what stores keep, so that nobody shares objects with them."""

from __future__ import annotations

import json
from typing import Any

from ..errors import StoreUnavailable


def to_json(record: dict[str, Any]) -> str:
    """JSON that every UTF-8 store takes. Raises StoreUnavailable."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text if _is_utf8(text) else json.dumps(record, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreUnavailable(f"a conversation cannot be kept as JSON: {error}") from error


def from_json(text: str | bytes) -> dict[str, Any]:
    """Raises StoreUnavailable: what is damaged must not look like a new conversation."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreUnavailable(f"a stored conversation is damaged: {error}") from error
    if not isinstance(record, dict):
        raise StoreUnavailable(f"a stored conversation is damaged: a {type(record).__name__}, not a dict")
    return record


def _is_utf8(text: str) -> bool:
    """Not with half a character (a lone surrogate) in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
