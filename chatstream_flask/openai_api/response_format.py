"""Structured replies: the grammar that the sampler follows."""

from __future__ import annotations

from ..grammar.schema import json_expression, json_schema_grammar, lark_grammar
from ..reply_format.family import ReplyFormat
from ..reply_format.tools.call_form import terminals
from .answer_format import AnswerFormat
from .errors import ApiError
from .schema_union import any_of
from .tools import ToolUse


def grammar_of(answer: AnswerFormat | None, use: ToolUse, reply_format: ReplyFormat) -> str | None:
    """Return the grammar of a reply; None if it is free.

    A forced call is the whole reply: the arguments of one function, or a call of one of several. With tools
    and a format for the answer, a reply is either calls or an answer in this format. With strict functions it
    is free, but for its calls.

    :raises BadRequest: a schema has something that is not supported
    """
    if len(use.forced) == 1:
        return json_schema_grammar(use.parameters_of(use.forced[0]))
    if use.forced:
        return json_schema_grammar(any_of(use.call_schemas("arguments")))
    if answer is None:
        return _strict_grammar(use, reply_format) if use.strict else None
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
    calls = form.rule(functions, reply_format.call_tokens, is_single=use.is_single)
    return lark_grammar(f"start: calls | answer\ncalls: {calls}\nanswer: {json_expression(schema)}")


def _strict_grammar(use: ToolUse, reply_format: ReplyFormat) -> str | None:
    """Return a grammar that begins to hold where a call does; None for a family without an opener in JSON."""
    syntax = reply_format.tool_syntax
    form = syntax.form
    if form is None or syntax is not reply_format.constrained_syntax:
        return None
    begin = (form.start + form.before).lstrip()
    opener = next((opener for opener in syntax.openers if begin.startswith(opener)), None)
    if opener is None:
        return None
    functions = {
        name: json_expression(use.parameters_of(name) if name in use.strict else {"type": "object"})
        for name in use.names
    }
    tokens = reply_format.call_tokens
    calls = form.behind(opener).rule(functions, tokens, is_single=use.is_single)
    is_token = opener in tokens.values()  # a text ends where it occurs first: `lazy`
    return lark_grammar(
        f"start: {'(opener calls)? | text' if use.is_single else '(opener calls)* text'}\n"
        f"opener{'' if is_token else '[lazy]'}: TEXT {terminals(opener, tokens)}\n"
        f"calls: {calls}\ntext: TEXT\nTEXT: /(.|\\n)*/"
    )
