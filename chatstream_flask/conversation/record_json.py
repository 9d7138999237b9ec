"""Records as JSON text, which is what stores keep."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidRecord


def to_json(record: dict[str, Any]) -> str:
    """Return JSON that can be encoded in UTF-8.

    :raises InvalidRecord: the record holds something else than JSON's types
    """
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text if _is_utf8(text) else json.dumps(record, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecord(f"a conversation cannot be stored as JSON: {error}") from error


def from_json(text: str | bytes) -> dict[str, Any]:
    """Return the record of a stored text.

    :raises InvalidRecord: the text is damaged; it must not look like a new conversation
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"a stored conversation is damaged: {error}") from error
    if not isinstance(record, dict):
        raise InvalidRecord(f"a stored conversation is damaged: a {type(record).__name__}, not a dict")
    return record


def _is_utf8(text: str) -> bool:
    """Return False if the text contains a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
