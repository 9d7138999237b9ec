"""Structured replies: the grammar that the sampler follows."""

from __future__ import annotations

from ..grammar.schema import json_expression, json_schema_grammar, lark_grammar
from ..reply_format.family import ReplyFormat
from .answer_format import AnswerFormat
from .errors import ApiError
from .schema_union import any_of
from .tools import ToolUse


def grammar_of(answer: AnswerFormat | None, use: ToolUse, reply_format: ReplyFormat) -> str | None:
    """Return the grammar of a reply; None if it is free.

    A forced call is the whole reply: the arguments of one function, or a call of one of several. With tools
    and a format for the answer, a reply is either calls or an answer in this format.

    :raises BadRequest: a schema has something that is not supported
    """
    if len(use.forced) == 1:
        return json_schema_grammar(use.parameters_of(use.forced[0]))
    if use.forced:
        return json_schema_grammar(any_of(use.call_schemas("arguments")))
    if answer is None:
        return None
    if not use.tools:
        return answer.to_grammar()
    schema = answer.schema
    if schema is None:
        raise ApiError(
            f"{answer.field} cannot be combined with tools, unless it is a JSON schema", param=answer.field
        )
    form = reply_format.constrained_syntax.form
    assert form is not None, "it is a syntax for grammars"
    if form.json_key:
        return json_schema_grammar(any_of([*use.call_schemas(form.json_key), schema]))
    functions = {name: json_expression(use.parameters_of(name)) for name in use.names}
    calls = form.rule(functions, reply_format.tool_tokens, is_single=use.is_single)
    return lark_grammar(f"start: calls | answer\ncalls: {calls}\nanswer: {json_expression(schema)}")
