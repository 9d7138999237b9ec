"""What a reply may be: calls that are forced, and calls or an answer in a format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask_fakes import ScriptedRunner
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from openai_fakes import HELLO, answer, running_api
from tokenizers import AddedToken
from transformers import AutoTokenizer

from chatstream_flask import demo_model
from chatstream_flask.errors import BadRequest
from chatstream_flask.openai_api.answer_format import answer_format
from chatstream_flask.openai_api.parse_body import parse_body
from chatstream_flask.openai_api.response_format import grammar_of
from chatstream_flask.openai_api.schema import ChatBody
from chatstream_flask.openai_api.tools import ToolUse, tool_use
from chatstream_flask.reply_format.deltas import CALLS, message_of
from chatstream_flask.reply_format.family import ReplyFormat, find_reply_format
from chatstream_flask.reply_format.tools.call_parser import ToolCallParser
from chatstream_flask.reply_format.tools.syntax import BARE, HERMES, SYNTAXES

NODE = {"$defs": {"node": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
PARAMETERS = NODE | {"properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "g"}},
]
ANSWER = {"type": "object", "properties": {"a}": {"type": "integer"}}, "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}}
CALL: tuple[str, Any] = ("f", {"next": {"n": 1}})
OTHER_CALL: tuple[str, Any] = ("g", {})
WRONG_CALL: tuple[str, Any] = ("f", {"next": 1})
STRICT_TOOLS = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}, TOOLS[1]]  # type: ignore


def grammar(reply_format: ReplyFormat | None = None, **fields: Any) -> tuple[str | None, ToolUse]:
    """Return the grammar of a request."""
    body = {"model": "m", "messages": HELLO, **fields}
    parsed = parse_body(json.dumps(body).encode(), ChatBody)
    use = tool_use(parsed)
    return grammar_of(answer_format(parsed), use, reply_format or ReplyFormat()), use


def accepts(tokenizer: Any, text_grammar: str | None, text: str) -> bool:
    assert text_grammar is not None
    matcher = LLMatcher(from_tokenizer(tokenizer), text_grammar)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Any]:
    yield AutoTokenizer.from_pretrained(demo_model.PATH)


def test_a_named_function_takes_the_whole_reply(tokenizer: Any) -> None:
    for name, good, bad in (("f", '{"next": {"n": 1}}', '{"next": 1}'), ("g", "{}", "[1]")):
        choice = {"type": "function", "function": {"name": name}}
        made, use = grammar(tools=TOOLS, tool_choice=choice)
        assert use.forced == (name,)
        assert accepts(tokenizer, made, good) and not accepts(tokenizer, made, bad)


def test_one_of_several_functions_takes_the_whole_reply(tokenizer: Any) -> None:
    made, _ = grammar(tools=TOOLS, tool_choice="required", response_format=FORMAT)
    assert accepts(tokenizer, made, '{"name": "f", "arguments": {"next": {"n": 1}}}')
    assert accepts(tokenizer, made, '{"name": "g", "arguments": {}}')
    for wrong in ('{"name": "h", "arguments": {}}', '{"name": "f", "arguments": {"next": 1}}', '{"a}": 1}'):
        assert not accepts(tokenizer, made, wrong)


def test_without_tools_or_with_the_choice_none_the_answer_has_the_format(tokenizer: Any) -> None:
    assert grammar(tools=TOOLS)[0] is None
    not_allowed: dict[str, Any] = {"tools": TOOLS, "tool_choice": "none"}
    for fields in ({}, not_allowed):
        made, _ = grammar(response_format=FORMAT, **fields)
        assert accepts(tokenizer, made, '{"a}": 1}') and not accepts(tokenizer, made, '{"b": 1}')


@pytest.mark.parametrize(
    "syntax", [syntax for _, syntax in SYNTAXES], ids=[signs[0] for signs, _ in SYNTAXES]
)
def test_with_tools_and_a_format_a_reply_is_calls_or_an_answer(syntax: Any, tokenizer: Any) -> None:
    reply_format = ReplyFormat(tool_syntax=syntax)
    syntax = reply_format.constrained_syntax
    assert syntax.form is not None
    made, use = grammar(reply_format, tools=TOOLS, response_format=FORMAT)
    several = [CALL, OTHER_CALL] if syntax.form.between is not None else [CALL]
    for calls in ([OTHER_CALL], several):
        text = syntax.form.write(calls)
        assert accepts(tokenizer, made, text)
        parser = ToolCallParser(syntax, use.tools, streams=True)
        found = [c["function"] for c in message_of([*parser.push(text), *parser.finish()])[CALLS]]
        assert [(f["name"], json.loads(f["arguments"])) for f in found] == calls
    assert accepts(tokenizer, made, '{"a}": 1}')
    for wrong in (
        "Hello",
        '{"b": 1}',
        syntax.form.write([("f", {"next": 1})]),
        syntax.form.write([("h", {})]),
    ):
        assert not accepts(tokenizer, made, wrong)


@pytest.mark.parametrize("is_special", [True, False])
def test_a_token_around_calls_is_a_token_in_the_grammar(*, is_special: bool) -> None:
    """No text is encoded to an added token, so that a grammar of text would never allow it."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model.PATH)
    tokenizer.add_tokens([AddedToken("<tool_call>", special=is_special)], special_tokens=is_special)
    tokenizer.chat_template = "{{ tools }}<tool_call></tool_call>"
    reply_format = find_reply_format(tokenizer)
    assert list(reply_format.tool_tokens.values()) == ["<tool_call>"] * is_special
    assert HERMES.form is not None
    call = HERMES.form.write([CALL, OTHER_CALL])
    made, _ = grammar(reply_format, tools=TOOLS, response_format=FORMAT)
    assert accepts(tokenizer, made, call)
    made, _ = grammar(reply_format, tools=STRICT_TOOLS)
    assert accepts(tokenizer, made, f"Let me see. {call}")
    assert not accepts(tokenizer, made, HERMES.form.write([WRONG_CALL]))


@pytest.mark.parametrize(
    "syntax", [syntax for _, syntax in SYNTAXES], ids=[signs[0] for signs, _ in SYNTAXES]
)
def test_calls_of_strict_functions_have_the_arguments_of_their_schema(syntax: Any, tokenizer: Any) -> None:
    reply_format = ReplyFormat(tool_syntax=syntax)
    made, use = grammar(reply_format, tools=STRICT_TOOLS)
    assert use.strict == {"f"} and use.tools == TOOLS
    assert grammar(reply_format, tools=TOOLS)[0] is None
    if syntax.form is None or syntax.form.json_key:
        assert made is None  # such calls are no JSON, or no text shows where they begin
        return
    for text in ("Hello", "Is 1 < 2?\n\n[x] {y}\n"):
        assert accepts(tokenizer, made, text)
    free_call: tuple[str, Any] = ("g", {"whatever": [1]})
    several = [CALL, free_call] if syntax.form.between is not None else [CALL]
    for calls in ([CALL], [free_call], several):
        assert accepts(tokenizer, made, f"Let me see.\n{syntax.form.write(calls)}")
    unknown_call: tuple[str, Any] = ("h", {})
    for wrong in (WRONG_CALL, unknown_call):
        assert not accepts(tokenizer, made, syntax.form.write([wrong]))
    single, _ = grammar(reply_format, tools=STRICT_TOOLS, parallel_tool_calls=False)
    assert accepts(tokenizer, single, syntax.form.write([CALL])) and accepts(tokenizer, single, "Hello")
    if syntax.form.between is not None:
        assert not accepts(tokenizer, single, syntax.form.write([CALL, CALL]))


def test_an_answer_may_look_like_a_call_in_its_beginning(tokenizer: Any) -> None:
    person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    persons = {"type": "json_schema", "json_schema": {"name": "person", "schema": person}}
    for syntax in (BARE, HERMES):
        reply_format = ReplyFormat(tool_syntax=syntax)
        made, use = grammar(reply_format, tools=TOOLS, response_format=persons)
        for name in ("f", "ff", "Bob"):
            text = f'{{"name": "{name}", "age": 1}}'
            assert accepts(tokenizer, made, text)
            parser = ToolCallParser(syntax, use.tools, streams=False)
            assert message_of([*parser.push(text), *parser.finish()])["content"] == text


# -- templates that know no tools ----------------------------------------------------------------------


def test_where_the_template_knows_no_tools_they_are_told_in_words(tmp_path: Path) -> None:
    call = HERMES.form and HERMES.form.write([("f", {"next": {"n": 1}})])
    with running_api(tmp_path, ScriptedRunner(lambda prompt: call or "")) as chat:
        chat.chat_stream.source.reply_format = ReplyFormat(knows_tools=False)
        (choice,) = answer(chat, tools=TOOLS)["choices"]
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
        answer(chat, tools=TOOLS, messages=[{"role": "system", "content": "Be kind."}, *HELLO])
        answer(chat, tools=TOOLS, tool_choice="none")
        first, second, without = chat.runner.prompts
        assert first.startswith("S:You can call functions.") and first.endswith("|U:Hello")
        listed = [json.loads(line) for line in first.splitlines() if line.startswith('{"name": "f"')]
        assert listed == [TOOLS[0]["function"]] and "<tool_call>" in first
        assert second.startswith("S:Be kind.\n\nYou can call functions.")
        assert without == "U:Hello"


def test_the_words_say_what_a_forced_call_looks_like(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "{}")) as chat:
        chat.chat_stream.source.reply_format = ReplyFormat(knows_tools=False)
        answer(chat, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}})
        answer(chat, tools=TOOLS, tool_choice="required")
        named, required = chat.runner.prompts
        assert "Call g now: reply with nothing but its arguments" in named and "<tool_call>" not in named
        assert 'reply with nothing but a JSON object like {"name"' in required


@pytest.mark.parametrize(
    ("template", "knows_tools"),
    [
        ("{{ messages }}", False),
        ("{{ messages }}{{ tools }}", True),
        ({"default": "{{ messages }}", "tool_use": "{{ messages }}{{ tools }}"}, True),
        ("{{ messages }}{% if tools %}You have tools.{% endif %}", False),
        ("{{ messages }}{% if tools %}{{ tools | map(attribute='function') | tojson }}{% endif %}", False),
        ("{{ no.such.thing }}{{ tools }}", True),
        ("[TOOL_CALLS]", False),
        (None, False),
    ],
)
def test_whether_a_template_knows_tools(template: Any, knows_tools: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_model.PATH)
    tokenizer.chat_template = template
    reply_format = find_reply_format(tokenizer)
    assert reply_format.knows_tools == knows_tools
    assert knows_tools or reply_format.tool_syntax is HERMES


def test_schemas_of_tools_are_bounded_together() -> None:
    big = {"type": "object", "properties": {"a": {"const": "x" * 40_000}}}
    tools = [{"type": "function", "function": {"name": name, "parameters": big}} for name in "fg"]
    with pytest.raises(BadRequest, match=r"the JSON schema has \d+ bytes; at most 65536"):
        grammar(tools=tools, tool_choice="required")
    with pytest.raises(BadRequest, match=r"the JSON schemas have \d+ bytes; at most 65536"):
        grammar(tools=tools, response_format=FORMAT)
