"""Structured replies: the grammar that the sampler follows."""

from __future__ import annotations

from ..grammar.schema import json_object_grammar, json_schema_grammar
from .errors import ApiError
from .schema import ResponseFormat
from .tools import ToolUse


def grammar_of(response_format: ResponseFormat | None, use: ToolUse) -> str | None:
    """Return the grammar for a response format or a forced tool call; None if the reply is free.

    :raises BadRequest: the schema has something that is not supported
    """
    if (schema := use.forced_schema) is not None:
        return json_schema_grammar(schema)
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_schema":
        if response_format.json_schema is None:
            raise ApiError("response_format.json_schema is missing", param="response_format.json_schema")
        return json_schema_grammar(response_format.json_schema.schema)
    return json_object_grammar()
