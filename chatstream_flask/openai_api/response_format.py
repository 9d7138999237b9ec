"""What a reply must look like, as a grammar for the sampler."""

from __future__ import annotations

from ..grammar.schema import json_object_grammar, json_schema_grammar
from .errors import ApiError
from .schema import ResponseFormat
from .tools import ToolUse


def grammar_of(response_format: ResponseFormat | None, use: ToolUse) -> str | None:
    """:raises BadRequest: the schema cannot be held to"""
    if (schema := use.forced_schema) is not None:
        return json_schema_grammar(schema)
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_schema":
        if response_format.json_schema is None:
            raise ApiError("response_format.json_schema is missing", param="response_format.json_schema")
        return json_schema_grammar(response_format.json_schema.schema)
    return json_object_grammar()
