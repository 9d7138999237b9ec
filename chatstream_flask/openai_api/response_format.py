"""Structured replies: the grammar that the sampler follows."""

from __future__ import annotations

from typing import Any

from ..grammar.schema import json_expression, json_schema_grammar, lark_grammar
from ..reply_format.family import ReplyFormat
from .errors import ApiError
from .schema import ResponseFormat
from .schema_union import any_of
from .tools import ToolUse


def grammar_of(response_format: ResponseFormat | None, use: ToolUse, reply_format: ReplyFormat) -> str | None:
    """Return the grammar of a reply; None if it is free.

    A forced call is the whole reply: the arguments of one function, or a call of one of several. With tools
    and a response format, a reply is either calls or an answer in this format.

    :raises BadRequest: a schema has something that is not supported
    """
    if len(use.forced) == 1:
        return json_schema_grammar(use.parameters_of(use.forced[0]))
    if use.forced:
        return json_schema_grammar(any_of(use.call_schemas("arguments")))
    schema = _schema_of(response_format)
    if schema is None:
        return None
    if not use.tools:
        return json_schema_grammar(schema)
    form = reply_format.constrained_syntax.form
    assert form is not None, "it is a syntax for grammars"
    if form.json_key:
        return json_schema_grammar(any_of([*use.call_schemas(form.json_key), schema]))
    functions = {name: json_expression(use.parameters_of(name)) for name in use.names}
    calls = form.rule(functions, reply_format.tool_tokens)
    return lark_grammar(f"start: calls | answer\ncalls: {calls}\nanswer: {json_expression(schema)}")


def _schema_of(response_format: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the JSON schema of a response format; None for text."""
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return {"type": "object"}
    if response_format.json_schema is None:
        raise ApiError("response_format.json_schema is missing", param="response_format.json_schema")
    return response_format.json_schema.schema
