"""Grammars for structured replies: from a JSON schema or a regex to what SamplingParams.grammar takes."""

from __future__ import annotations

import json
from typing import Any

from ..config import shown
from ..errors import BadRequest

MAX_SCHEMA_LEN = 64 * 1024  # bytes of JSON
MAX_SCHEMA_DEPTH = 32  # objects and lists within each other
MAX_REGEX_LEN = 4096  # characters
MAX_MESSAGE_LEN = 300  # characters of the library's own words


def json_schema_grammar(schema: Any) -> str:
    """Replies are JSON that fits the schema, its properties in the schema's order.

    :raises BadRequest: the schema is wrong, too large, or says what cannot be held to
    """
    if not isinstance(schema, (dict, bool)):
        raise BadRequest(f"a JSON schema must be an object, not {shown(schema)}")
    _check_depth(schema)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        num_bytes = len(text.encode())
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is not JSON: {error}") from error
    if num_bytes > MAX_SCHEMA_LEN:
        raise BadRequest(f"the JSON schema has {num_bytes} bytes; at most {MAX_SCHEMA_LEN} are allowed")
    return _checked(_matcher_class().grammar_from_json_schema(text), "JSON schema")


def json_object_grammar() -> str:
    """Replies are a JSON object, any one."""
    return json_schema_grammar({"type": "object"})


def regex_grammar(pattern: str) -> str:
    """Replies match the whole of a regular expression (Rust's syntax, without anchors and look-around)."""
    if not isinstance(pattern, str) or not pattern:
        raise BadRequest(f"a regular expression must be a non-empty string, not {shown(pattern)}")
    if len(pattern) > MAX_REGEX_LEN:
        raise BadRequest(
            f"the regular expression has {len(pattern)} characters; at most {MAX_REGEX_LEN} are allowed"
        )
    return _checked(_matcher_class().grammar_from_regex(pattern), "regular expression")


def _checked(grammar: str, kind: str) -> str:
    if error := _matcher_class().validate_grammar(grammar):
        raise BadRequest(f"the {kind} cannot be used: {error[:MAX_MESSAGE_LEN]}")
    return grammar


def _check_depth(schema: Any) -> None:
    """Level by level, so that no depth can exhaust Python's stack."""
    level, depth = [schema], 0
    while level := [inner for outer in level for inner in _inner(outer)]:
        depth += 1
        if depth >= MAX_SCHEMA_DEPTH:
            raise BadRequest(f"the JSON schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")


def _inner(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value
    return [inner for inner in values if isinstance(inner, (dict, list))]


def _matcher_class() -> Any:
    try:
        from llguidance import LLMatcher  # optional, and loaded only when a request needs it
    except ImportError as error:
        raise BadRequest(
            "this server makes no structured replies: chatstream-flask[structured] is not installed"
        ) from error
    return LLMatcher
