"""Parsing of replies: the message does not depend on how the text is split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.reply_format.deltas import message_of
from chatstream_flask.reply_format.reply_parser import ReplyParser, TextReply
from chatstream_flask.reply_format.template_reply import TemplateReply

GEMMA: dict[str, Any] = {  # as Gemma 4's: reasoning first, and JSON of its own kind
    "defaults": {"role": "assistant"},
    "start_anchor": "<|turn>model\n",
    "fields": {
        "reasoning_content": {"open": "<|channel>thought\n", "close": "<channel|>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"<\|tool_call>call:(?P<name>\w+)",
            "close": "<tool_call|>",
            "repeats": True,
            "content": "json",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close": ["<turn|>"], "content": "text"},
    },
}
PARSERS: dict[str, Callable[[], ReplyParser]] = {
    "text": TextReply,
    "gemma": lambda: TemplateReply(GEMMA, "<|turn>user\nHello<turn|>\n<|turn>model\n", []),
}
PIECES = [  # of which replies are made
    *("Hello", " ", "\n", "日本", "<|tool_call>call:f", '{a:<|"|>x<|"|>}', "<tool_call|>"),
    *("<|channel>thought\n", "<channel|>", "<turn|>", "<"),
]


def parse(parser: ReplyParser, pieces: Sequence[str]) -> dict[str, Any]:
    deltas = [delta for piece in pieces for delta in parser.push(piece)]
    return without_ids(message_of([*deltas, *parser.finish()]))


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Remove the ids of calls, which are random."""
    for call in message.get("tool_calls", []):
        assert call.pop("id").startswith("call_")
    return message


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.data())
@settings(deadline=None)
def test_how_the_text_is_cut_changes_nothing(kind: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    pieces = [text[start:stop] for start, stop in pairwise(sorted({0, *cuts, len(text)}))]
    whole, cut = PARSERS[kind](), PARSERS[kind]()
    assert parse(whole, [text]) == parse(cut, pieces) == parse(PARSERS[kind](), list(text))
    assert whole.has_called == cut.has_called


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def test_reasoning_has_a_field_of_its_own() -> None:
    text = '<|channel>thought\nHm.<channel|>\n\nYes.<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>'
    message = parse(PARSERS["gemma"](), [text])
    assert message["reasoning_content"] == "Hm."
    assert message["content"] == "Yes."
    assert message["tool_calls"] == [call("f", '{"a": "x"}')]


def test_what_breaks_the_template_is_text_from_there_on() -> None:
    message = parse(PARSERS["gemma"](), ["Yes.<|tool_call>call:f{a:}<tool_call|> and so on"])
    assert "tool_calls" not in message
    assert message["content"].startswith("Yes.{a:}")
    assert message["content"].endswith(" and so on")
