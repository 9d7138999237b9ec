"""Reasoning in the text of a reply: each family's tags and channels, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatstream_flask.engine.reasoning import Piece, ReasoningSplitter
from chatstream_flask.reply_format.deltas import message_of
from chatstream_flask.reply_format.harmony import MARKERS, HarmonyFormat
from chatstream_flask.reply_format.reasoning_tags import FAMILIES, ReasoningTags, find_tags
from chatstream_flask.reply_format.tools.call_parser import ToolCallParser
from chatstream_flask.reply_format.tools.syntax import HARMONY

THINK = ReasoningTags("<think>", "</think>")
GRANITE = ReasoningTags("<think>", "</think>", "<response>", "</response>")
FORMATS = (*FAMILIES, HarmonyFormat())
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HARMONY_REPLY = (
    "<|channel|>analysis<|message|>Let me look.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>One moment. <|end|>"
    "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>"
    '{"a": "<|b"}<|call|>'
)


def split(splitter: ReasoningSplitter, *texts: str) -> tuple[str, str]:
    """Return reasoning and answer of a reply that arrives in these pieces."""
    pieces: list[Piece] = []
    for text in texts:
        pieces += splitter.push(text)
    pieces += splitter.finish()
    assert all(piece.text for piece in pieces)
    return (
        "".join(piece.text for piece in pieces if piece.is_reasoning),
        "".join(piece.text for piece in pieces if not piece.is_reasoning),
    )


@pytest.mark.parametrize("tags", FAMILIES, ids=lambda tags: tags.close + tags.answer_close)
@pytest.mark.parametrize("is_open", [True, False])
def test_reasoning_is_found_where_the_model_opens_it_and_where_the_prompt_does(
    tags: ReasoningTags, is_open: bool
) -> None:
    reply = f"\nHm.\n\nYes? {tags.close}\n\n{tags.answer_open}It is 4.\n{tags.answer_close}\n"
    prompt, text = (f"Hi\n{tags.open}\n", reply) if is_open else ("Hi\n", f"\n{tags.open}{reply}")
    answer = "It is 4." if tags.answer_close else "It is 4.\n\n"
    assert split(tags.make_splitter(prompt), text) == ("Hm.\n\nYes?", answer)


@pytest.mark.parametrize("tags", [tags for tags in FAMILIES if tags.call_open], ids=lambda tags: tags.open)
def test_a_tool_call_ends_reasoning_that_is_not_closed(tags: ReasoningTags) -> None:
    text = f'{tags.open}Hm. {tags.call_open}[{{"f": {{}}}}]'
    assert split(tags.make_splitter(""), text) == ("Hm.", f'{tags.call_open}[{{"f": {{}}}}]')
    assert split(tags.make_splitter(""), *text) == ("Hm.", f'{tags.call_open}[{{"f": {{}}}}]')


@pytest.mark.parametrize(
    "text",
    [
        "The tag <think> begins it, </think> ends it.",
        "<thin",
        "  <b>bold</b>",
        "</think> is a tag",
        "",
        " \n",
        "In <response> tags</response>",
    ],
)
def test_tags_in_an_answer_are_text(text: str) -> None:
    assert split(GRANITE.make_splitter("Hi<think></think>"), text) == ("", text)


def test_a_second_block_is_text() -> None:
    reply = "<think>a</think>b<think>c</think>d"
    assert split(THINK.make_splitter(""), reply) == ("a", "b<think>c</think>d")


def test_an_empty_block_leaves_only_the_answer() -> None:
    assert split(THINK.make_splitter(""), "<think>\n\n</think>\n\nYes.") == ("", "Yes.")


def test_a_model_may_repeat_the_tag_of_its_prompt() -> None:
    assert split(THINK.make_splitter("<think>\n"), "<think>\na</think>b") == ("a", "b")


def test_reasoning_that_is_cut_off_is_reasoning() -> None:
    assert split(THINK.make_splitter("<think>\n"), "a </thi") == ("a </thi", "")


def test_a_prompt_that_closes_the_block_is_followed_by_the_answer() -> None:
    assert split(THINK.make_splitter("<think>\n\n</think>\n\n"), "Yes.") == ("", "Yes.")


def test_nothing_is_held_back_but_what_may_become_a_tag_and_white_space() -> None:
    splitter = THINK.make_splitter("<think>")
    shown = [splitter.push(text) for text in ("a b", " \n", "c</", "x", "</think", ">\n", "yes", " ")]
    assert [[piece.text for piece in pieces] for pieces in shown] == [
        ["a b"], [], [" \nc"], ["</x"], [], [], ["yes"], [" "],
    ]  # fmt: skip


WORDS = st.sampled_from(
    [
        *["a", " ", "\n", "<", "</", "think", ">", "<think>", "</think>", "<response>", "</response>"],
        *["[THINK]", "[/THINK]", "<|channel", "|>", "<channel|>", "thought", *MARKERS, "analysis", "final"],
        *["commentary to=functions.f ", '{"a": 1}'],
    ]
)


@given(
    number=st.integers(0, len(FORMATS) - 1),
    is_open=st.booleans(),
    words=st.lists(WORDS, max_size=12),
    cuts=st.sets(st.integers(0, 60)),
)
@example(number=len(FORMATS) - 1, is_open=False, words=["a", "<|message|>"], cuts={1})
def test_how_a_reply_is_cut_makes_no_difference(
    number: int, is_open: bool, words: list[str], cuts: set[int]
) -> None:
    kind = FORMATS[number]
    prompt = kind.markers[0] if is_open else ""
    text = "".join(words)
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    whole = split(kind.make_splitter(prompt), text)
    assert split(kind.make_splitter(prompt), *pieces) == whole


@given(words=st.lists(WORDS, max_size=8))
def test_a_reply_that_never_opens_a_block_is_unchanged(words: list[str]) -> None:
    text = "".join(words)
    if not text.lstrip().startswith(THINK.open):
        assert split(THINK.make_splitter(""), text) == ("", text)


@pytest.mark.parametrize("end", ["<|call|>", ""])  # which ends the reply, so that it may not be shown
@pytest.mark.parametrize("streams", [False, True])
def test_harmony_channels(end: str, streams: bool) -> None:
    reasoning, answer = split(HarmonyFormat().make_splitter(""), HARMONY_REPLY.removesuffix("<|call|>") + end)
    parser = ToolCallParser(HARMONY, TOOLS, streams=streams)
    message = message_of(parser.push(answer) + parser.finish())
    assert reasoning == "Let me look."
    assert message["content"] == "One moment."
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "f", "arguments": '{"a": "<|b"}'}
    ]


def test_a_harmony_call_without_json_is_text() -> None:
    parser = ToolCallParser(HARMONY, TOOLS, streams=False)
    text = "<|channel|>commentary to=functions.f<|message|>{no<|call|>"
    assert message_of(parser.push(text) + parser.finish())["content"] == text
    assert not parser.has_called


def test_a_harmony_call_that_a_grammar_holds_is_shown_without_its_header() -> None:
    splitter = HarmonyFormat().make_splitter("", is_constrained=True)
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}'
    )
    assert split(splitter, text) == ("Hm.", '{"a": 1}')


@pytest.mark.parametrize("text", ["Hello there", "<b>Hello</b>"])
def test_plain_text_of_a_harmony_model_is_the_answer(text: str) -> None:
    assert split(HarmonyFormat().make_splitter(""), text) == ("", text)


@pytest.mark.parametrize(
    ("template", "vocabulary", "close"),
    [
        ("{{ '<think>\\n' }}", set(), "</think>"),
        ("content.split('</think>')[-1]", set(), "</think>"),
        ("", {"<think>", "</think>"}, "</think>"),
        ("'[THINK]' + block + '[/THINK]'", {"<think>"}, "[/THINK]"),
        ("<|channel>thought\n", set(), "<channel|>"),
        ("{{ message.content }}", {"<|im_start|>"}, None),
    ],
)
def test_the_family_is_found_by_template_and_vocabulary(
    template: str, vocabulary: set[str], close: str | None
) -> None:
    tags = find_tags(template, vocabulary)
    assert (tags and tags.close) == close
