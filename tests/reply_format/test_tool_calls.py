"""Tool calls in the syntax of each model family: found, streamed in pieces, and only where there are any."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.reply_format.deltas import CALLS, Delta, message_of
from chatstream_flask.reply_format.family import find_reply_format
from chatstream_flask.reply_format.tools.call_parser import ToolCallParser
from chatstream_flask.reply_format.tools.syntax import ToolSyntax, find_tool_syntax, forced_syntax

PARAMETERS = {
    "type": "object",
    "properties": {
        "s": {"type": "string"},
        "n": {"type": "integer"},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "any": {},
    },
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("f", "g")]
Calls = list[tuple[str, Any]]

# The signs by which a template is recognised, and a reply with the call f(s="a", n=1) and then g().
FAMILIES: dict[str, tuple[str, str]] = {
    "hermes": (
        "<tool_call>",
        '<tool_call>\n{"name": "f", "arguments": {"s": "a", "n": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
    ),
    "llama": (
        "<|start_header_id|>{{ tools }}",
        '{"name": "f", "parameters": {"s": "a", "n": 1}}; {"name": "g", "parameters": {}}',
    ),
    "llama, python_tag": (
        "<|start_header_id|>{{ tools }}",
        '<|python_tag|>{"name": "f", "parameters": {"s": "a", "n": 1}}<|python_tag|>g.call()',
    ),
    "llama, function tags": (
        "<|start_header_id|>{{ tools }}",
        '<function=f>{"s": "a", "n": 1}</function><function=g>{}</function>',
    ),
    "mistral, list": (
        "[TOOL_CALLS]",
        '[TOOL_CALLS] [{"name": "f", "arguments": {"s": "a", "n": 1}, "id": "abcdefghi"}, '
        '{"name": "g", "arguments": {}}]',
    ),
    "mistral, names": ("[TOOL_CALLS]", '[TOOL_CALLS]f[ARGS]{"s": "a", "n": 1}[TOOL_CALLS]g{}'),
    "mistral, ids": (
        "[TOOL_CALLS]",
        '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"s": "a", "n": 1}[TOOL_CALLS]g[CALL_ID]abcdefghj[ARGS]{}',
    ),
    "deepseek v3": (
        "<｜tool▁call▁begin｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        '{"s": "a", "n": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n'
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek v3.1": (
        "<｜tool▁call▁begin｜>",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"s": "a", "n": 1}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek v3.2": (
        "｜DSML｜",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
        '<｜DSML｜parameter name="s" string="true">a</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="n" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="g">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    ),
    "kimi": (
        "<|tool_call_begin|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        '{"s": "a", "n": 1}<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>",
    ),
    "glm": (
        "<tool_call> <arg_key>",
        "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a</arg_value>\n<arg_key>n</arg_key>\n"
        "<arg_value>1</arg_value>\n</tool_call>\n<tool_call>g</tool_call>",
    ),
    "qwen3 coder": (
        "<tool_call> <parameter=",
        "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n<parameter=n>\n1\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
    ),
    "seed": (
        "seed:tool_call <parameter=",
        "<seed:tool_call>\n<function=f>\n<parameter=s>a</parameter>\n<parameter=n>1</parameter>\n"
        "</function>\n<function=g>\n</function>\n</seed:tool_call>",
    ),
    "granite": (
        "<|tool_call|>",
        '<|tool_call|>[{"name": "f", "arguments": {"s": "a", "n": 1}}, {"name": "g", "arguments": {}}]',
    ),
    "phi-4": (
        "<|tool|>",
        '<|tool_call|>[{"name": "f", "arguments": {"s": "a", "n": 1}}, {"name": "g"}]<|/tool_call|>',
    ),
    "command r7b": (
        "<|START_ACTION|> Action: tool_name",
        '<|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": "f", "parameters": {"s": "a", "n": 1}},\n'
        ' {"tool_call_id": "1", "tool_name": "g", "parameters": {}}\n]<|END_ACTION|>',
    ),
    "command r+": (
        "Action: tool_name",
        'Action: ```json\n[\n  {"tool_name": "f", "parameters": {"s": "a", "n": 1}},\n'
        '  {"tool_name": "g", "parameters": {}}\n]```',
    ),
    "firefunction": (
        "functools",
        ' functools[{"name": "f", "arguments": {"s": "a", "n": 1}}, {"name": "g", "arguments": {}}]',
    ),
    "jamba": (
        "<tool_calls>",
        '<tool_calls>[\n{"name": "f", "arguments": {"s": "a", "n": 1}},\n{"name": "g", "arguments": {}}\n]'
        "</tool_calls>",
    ),
    "gemma 4": (
        "<|tool_call>call:",
        '<|tool_call>call:f{s:<|"|>a<|"|>,n:1}<tool_call|><|tool_call>call:g{}<tool_call|>',
    ),
    "apertus": (
        "<|tools_prefix|>",
        '<|tools_prefix|>[{"f": {"s": "a", "n": 1}}, {"g": {}}]<|tools_suffix|>',
    ),
    "gigachat": (
        "<|function_call|>",
        '<|function_call|>{"name": "f", "arguments": {"s": "a", "n": 1}}<|function_call|>{"name": "g"}',
    ),
    "lfm2": ("List of tools: ", '<|tool_call_start|>[f(s="a", n=1), g()]<|tool_call_end|>'),
}
BROKEN = [  # pieces of which texts are made that are calls in part
    *("Hello", " ", "\n", "日本", "<", "{", "}", '"', ",", "[", "]", "\\", "NaN", "1", '{"name": "f", '),
    *('"arguments": {"s": "a"', '"name": "g"', '"arguments": {"s": "</tool_call>', "}}", "</function>"),
    *("<function=f>", "<parameter=s>", "</parameter>", "<arg_key>s</arg_key>", "<arg_value>x</arg_value>"),
]


def syntax_of(family: str) -> ToolSyntax:
    return find_tool_syntax(FAMILIES[family][0])


def deltas_of(
    syntax: ToolSyntax, pieces: Sequence[str], *, streams: bool = True
) -> tuple[list[Delta], ToolCallParser]:
    parser = ToolCallParser(syntax, TOOLS, streams=streams)
    return [*(delta for piece in pieces for delta in parser.push(piece)), *parser.finish()], parser


def calls_and_text(deltas: list[Delta]) -> tuple[list[tuple[str, str]], str | None]:
    message = message_of(deltas)
    functions = [call["function"] for call in message.get(CALLS, [])]
    return [(f["name"], f["arguments"]) for f in functions], message["content"]


def read(family: str, text: str, *, streams: bool = True) -> tuple[Calls, str | None]:
    calls, content = calls_and_text(deltas_of(syntax_of(family), [text], streams=streams)[0])
    return [(name, json.loads(arguments)) for name, arguments in calls], content


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("streams", [True, False])
def test_calls_of_each_family_are_found(family: str, streams: bool) -> None:
    text = FAMILIES[family][1]
    calls: Calls = [("f", {"s": "a", "n": 1}), ("g", {})]
    assert read(family, text, streams=streams) == (calls, None)
    if text[0] != "{":  # a call without an opener begins the reply
        assert read(family, f"Let me see.\n\n{text}\n", streams=streams) == (calls, "Let me see.")


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_how_the_text_is_cut_changes_nothing(family: str, data: st.DataObject) -> None:
    syntax, call = syntax_of(family), FAMILIES[family][1]
    middle = data.draw(st.integers(0, len(call)))
    pieces_of_text = [*BROKEN, *syntax.markers, call, call[:middle], call[middle:]]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces_of_text), max_size=6)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    pieces = [text[start:stop] for start, stop in pairwise(sorted({0, *cuts, len(text)}))]
    for streams in (True, False):
        results = [deltas_of(syntax, way, streams=streams) for way in ([text], pieces, list(text))]
        messages = [calls_and_text(deltas) for deltas, _ in results]
        assert messages[0] == messages[1] == messages[2]
        assert len({parser.has_called for _, parser in results}) == 1
    for _, arguments in messages[0][0]:  # not streamed: all are complete
        assert isinstance(json.loads(arguments, parse_constant=pytest.fail), dict)


@pytest.mark.parametrize("family", ["hermes", "mistral, ids", "deepseek v3", "qwen3 coder", "glm"])
def test_arguments_are_streamed_as_they_come(family: str) -> None:
    parser = ToolCallParser(syntax_of(family), TOOLS, streams=True)
    told = [delta[CALLS][0] for char in FAMILIES[family][1] for delta in parser.push(char)]
    first, *more = [call for call in told if call["index"] == 0]
    assert (
        first["function"] == {"name": "f", "arguments": "{"} and first["id"] and first["type"] == "function"
    )
    assert len(more) > 5 and all(call.keys() == {"index", "function"} for call in more)
    arguments = "".join(call["function"]["arguments"] for call in (first, *more))
    assert json.loads(arguments) == {"s": "a", "n": 1}


def test_a_call_that_is_not_streamed_comes_when_it_is_complete() -> None:
    parser = ToolCallParser(syntax_of("hermes"), TOOLS, streams=False)
    told = [delta for char in FAMILIES["hermes"][1] for delta in parser.push(char)]
    assert [delta[CALLS][0]["function"]["name"] for delta in told] == ["f", "g"]


# -- what is no call -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_opener_in_prose_stays_text(family: str) -> None:
    for opener in syntax_of(family).openers:
        text = f"It writes {opener} before a call, and {opener}."
        assert read(family, text) == ([], text)


@pytest.mark.parametrize("family", sorted(family for family in FAMILIES if not family.startswith("llama")))
def test_a_call_that_is_quoted_as_code_stays_text(family: str) -> None:
    call = FAMILIES[family][1]
    one_line = " ".join(call.split())
    for text in (
        f"Write `{one_line}` for it.",
        f"Like this:\n\n  ```\n{call}\n  ```\nSo it is.",
        f"```{one_line}",
    ):
        assert read(family, text) == ([], text)
    closed = f"`x`, and\n```py\ny = `z\n```\n{call}"
    assert read(family, closed) == (
        [("f", {"s": "a", "n": 1}), ("g", {})],
        closed.partition(call)[0].rstrip(),
    )


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"lfm2"}))  # those are known when their list ends
@pytest.mark.parametrize("streams", [True, False])
def test_a_call_that_is_cut_off_is_text_and_those_before_it_are_not(family: str, streams: bool) -> None:
    text = FAMILIES[family][1]
    second = re.search(r"(?<![a-z_])g(?![a-z_])", text)
    assert second is not None
    cut = text[: second.start()]
    calls, content = read(family, cut, streams=streams)
    assert calls == [("f", {"s": "a", "n": 1})]
    assert content is None or cut.endswith(content)
    deltas, parser = deltas_of(syntax_of(family), [text[: text.index("1")]], streams=streams)
    assert not parser.has_called
    assert calls_and_text(deltas)[1] == text[: text.index("1")]


@pytest.mark.parametrize(
    "wrong",
    [
        '{"name": "f", "arguments": {"n": NaN}}',
        '{"name": "f", "arguments": {"n": 1,}}',
        '{"name": "f", "arguments": {"n": 01}}',
        "{'name': 'f'}",
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "no JSON"}',
        '{"name": "f", "arguments": "{\\"n\\": Infinity}"}',
        '{"name": "no name", "arguments": {}}',
        '{"arguments": {}}',
        '{"name": "f", "colour": 1}',
        "[]",
        "",
    ],
)
def test_a_broken_call_stays_text_whole(wrong: str) -> None:
    text = f"a <tool_call>{wrong}</tool_call> b"
    assert read("hermes", text, streams=False) == ([], text)
    deltas, parser = deltas_of(syntax_of("hermes"), [text])
    assert not parser.has_called
    assert calls_and_text(deltas)[1] == text


def test_a_call_nested_beyond_reason_is_text() -> None:
    deep = '<tool_call>{"name": "f", "arguments": {"any": ' + "[" * 100_000
    assert read("hermes", deep, streams=False) == ([], deep)
    call = '<tool_call>{"name": "f", "arguments": "' + "[" * 100_000 + '"}'
    assert read("hermes", call) == ([], call)


def test_a_call_is_found_behind_a_broken_one() -> None:
    broken = '<tool_call>\n{"name": "f", "arguments": {"n": x}'
    text = f'{broken}<tool_call>{{"name": "g"}}</tool_call>'
    assert read("hermes", text, streams=False) == ([("g", {})], broken)
    assert read("hermes", f"<tool_call><tool_call>{text[len(broken) + 11 :]}") == ([("g", {})], "<tool_call>")


def test_an_answer_in_json_is_no_call_of_llama() -> None:
    for text in (
        '{"name": "Bob", "parameters": {}}',
        '{"answer": 1}',
        '{"type": "f"}',
        "{}",
        '[{"name": "f"}]',
    ):
        assert read("llama", text) == ([], text)


# -- what models write a little wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        '{"arguments": {"s": "a"}, "name": "f"}',
        '{"name": "f", "arguments": "{\\"s\\": \\"a\\"}"}',
        '{"type": "function", "function": {"name": "f", "arguments": {"s": "a"}}}',
        '{"id": 1, "name": "f", "parameters": {"s": "a"}, "type": "function"}',
        '{"name": "f", "arguments": {"s": "a"}',
        '[{"name": "f", "arguments": {"s": "a"}}]',
    ],
)
def test_forms_of_a_call_that_models_also_write(call: str) -> None:
    assert read("hermes", f"<tool_call>{call}</tool_call>") == ([("f", {"s": "a"})], None)


@pytest.mark.parametrize("arguments", ["", ', "arguments": null', ', "arguments": ""', ', "arguments": {}'])
def test_a_call_without_arguments(arguments: str) -> None:
    assert read("hermes", f'<tool_call>{{"name": "f"{arguments}}}</tool_call>') == ([("f", {})], None)


def test_strings_of_arguments_keep_tags_and_get_their_line_ends_escaped() -> None:
    for string in ("</tool_call>", "<tool_call>", '\\"}</tool_call>\\u00e9\\\\'):
        call = f'{{"name": "f", "arguments": {{"s": "{string}"}}}}'
        assert read("hermes", f"<tool_call>{call}</tool_call>") == (
            [("f", {"s": json.loads(f'"{string}"')})],
            None,
        )
    lines = '<tool_call>{"name": "f", "arguments": {"s": "one\ntwo\tthree"}}</tool_call>'
    assert read("hermes", lines) == ([("f", {"s": "one\ntwo\tthree"})], None)


def test_the_text_of_arguments_is_the_models() -> None:
    written = '{ "s" : "\\u0061",\n "any": [1e3, -0.5, true, null, {}, []] }'
    deltas, _ = deltas_of(
        syntax_of("hermes"), [f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>']
    )
    assert calls_and_text(deltas) == ([("f", written)], None)


@pytest.mark.parametrize(
    ("parameter", "written", "value"),
    [
        ("s", "12", "12"),
        ("s", ' "quoted" \\ <b>\n', ' "quoted" \\ <b>\n'),
        ("s", "", ""),
        ("n", "12", 12),
        ("n", "twelve", "twelve"),
        ("either", "12", "12"),
        ("either", "null", None),
        ("any", '{"a": [1]}', {"a": [1]}),
        ("any", "True", True),
        ("any", "NaN", "NaN"),
        ("unknown", "12", 12),
    ],
)
def test_tagged_parameters_have_the_type_of_their_schema(parameter: str, written: str, value: Any) -> None:
    coder = f"<tool_call><function=f><parameter={parameter}>\n{written}\n</parameter></function></tool_call>"
    glm = f"<tool_call>f<arg_key>{parameter}</arg_key><arg_value>{written}</arg_value></tool_call>"
    for family, text in (("qwen3 coder", coder), ("glm", glm)):
        assert read(family, text) == ([("f", {parameter: value})], None)


def test_values_of_gemma_become_json() -> None:
    written = 'call:f{s:<|"|>"a"\n<|"|>,any:[1.5,true,null,{<|"|>k:k<|"|>:[]}]}'
    value: Any = {"s": '"a"\n', "any": [1.5, True, None, {"k:k": []}]}
    assert read("gemma 4", f"<|tool_call>{written}<tool_call|>") == ([("f", value)], None)
    for wrong in ("call:f{any:NaN}", "call:f{n:1,}", "call:f{n:" + "[" * 100, "call: f{}"):
        assert read("gemma 4", f"<|tool_call>{wrong}", streams=False) == ([], f"<|tool_call>{wrong}")


def test_white_space_belongs_to_the_content_unless_a_call_follows() -> None:
    assert read("hermes", " a \n b \n") == ([], " a \n b \n")
    text = 'Wait.\n<tool_call>{"name": "f"}</tool_call>\n Done. '
    assert read("hermes", text) == ([("f", {})], "Wait.\n Done.")


def test_ids_are_as_long_as_the_template_demands() -> None:
    for family, length in (("hermes", len("call_") + 24), ("mistral, ids", 9)):
        calls = message_of(deltas_of(syntax_of(family), [FAMILIES[family][1]])[0])[CALLS]
        ids = [call["id"] for call in calls]
        assert [len(i) for i in ids] == [length] * 2 and len(set(ids)) == 2


# -- calls that are forced -----------------------------------------------------------------------------


def test_a_forced_reply_is_arguments_of_one_function_or_a_call_of_one_of_several() -> None:
    one, several = '{"s": "a"}', '{"name": "g", "arguments": {"s": "a"}}'
    assert calls_and_text(deltas_of(forced_syntax(["f"]), [one])[0]) == ([("f", one)], None)
    assert calls_and_text(deltas_of(forced_syntax(["f", "g"]), [several])[0]) == ([("g", one)], None)
    for names, text in ((["f"], one), (["f", "g"], several)):
        deltas, parser = deltas_of(forced_syntax(names), [text[:-3]], streams=False)
        assert calls_and_text(deltas) == ([], text[:-3]) and not parser.has_called


# -- tokenizers and templates ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["granite", "phi-4", "apertus", "firefunction", "lfm2", "hermes"])
def test_calls_written_into_a_history_are_read_again(family: str) -> None:
    calls: Calls = [("f", {"s": 'a"b\n', "n": 1, "any": [None, True]}), ("g", {})]
    form = syntax_of(family).form
    assert form is not None
    assert read(family, form.write(calls)) == (calls, None)


class Token:
    def __init__(self, content: str, special: bool) -> None:
        self.content = content
        self.special = special


class MistralTokenizer:
    chat_template: ClassVar = {"default": "{{ messages }}", "tool_use": "[TOOL_CALLS]{{ tools }}"}
    added_tokens_decoder: ClassVar = {
        2: Token("</s>", True),
        9: Token("[TOOL_CALLS]", True),
        32: Token("[ARGS]", True),
        33: Token("[CALL_ID]", False),  # stays in the text anyway
    }

    def apply_chat_template(self, messages: list[Any], tools: list[Any], **kwargs: Any) -> str:
        return f"{messages}{tools}"


def test_special_tokens_that_mark_calls_stay_in_the_text_and_others_do_not() -> None:
    reply_format = find_reply_format(MistralTokenizer())
    assert reply_format.tool_syntax is syntax_of("mistral, ids")
    assert reply_format.tool_tokens == {9: "[TOOL_CALLS]", 32: "[ARGS]"}
    assert reply_format.make_parser(TOOLS).kept_tokens == {9: "[TOOL_CALLS]", 32: "[ARGS]"}
    assert not reply_format.make_parser().kept_tokens
