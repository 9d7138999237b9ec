"""The reply format of a model, found from its tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatstream_flask.reply_format.family import ReplyFormat, find_reply_format
from chatstream_flask.reply_format.harmony import HarmonyFormat
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags
from chatstream_flask.reply_format.tools.syntax import HARMONY


class Token:
    def __init__(self, content: str, special: bool) -> None:
        self.content = content
        self.special = special


class Tokenizer:
    """Each added token is one id, every other character is its code point."""

    def __init__(self, template: str | dict[str, str] = "", *added: str, **attributes: Any) -> None:
        self.chat_template = template
        self.added_tokens_decoder = {2000 + i: Token(text, True) for i, text in enumerate(added)}
        vars(self).update(attributes)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        ids = []
        while text:
            found = [
                (i, t.content) for i, t in self.added_tokens_decoder.items() if text.startswith(t.content)
            ]
            token_id, part = found[0] if found else (ord(text[0]), text[0])
            ids.append(token_id)
            text = text[len(part) :]
        return ids


def test_a_model_without_a_sign_of_reasoning_has_none() -> None:
    found = find_reply_format(Tokenizer("{{ messages }}", "<|im_end|>"))
    assert found.reasoning is None
    assert found.reasoning_of("<think>", room=9) is None
    assert found.reserved_tokens(100, None, 1000) == 0


def test_the_reasoning_is_closed_by_the_tokens_of_the_models_own_tag() -> None:
    found = find_reply_format(Tokenizer("<think>", "<think>", "</think>"))
    assert found.closing_ids == (ord("\n"), 2001, ord("\n"), ord("\n"))
    assert found.num_opening == 1
    assert found.reasoning_tokens == {2000: "<think>", 2001: "</think>"}


def test_only_tokens_of_the_tags_stay_in_the_text() -> None:
    found = find_reply_format(Tokenizer("[THINK]", "[THINK]", "</s>", "[/THINK]"))
    assert found.reasoning_tokens == {2000: "[THINK]", 2002: "[/THINK]"}


@pytest.mark.parametrize("template", ["<|channel|>analysis<|message|>", ""])
def test_harmony(template: str) -> None:
    tokenizer = Tokenizer(template, "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|endoftext|>")
    found = find_reply_format(tokenizer)
    assert isinstance(found.reasoning, HarmonyFormat)
    assert found.tool_syntax is HARMONY
    assert set(found.reasoning_tokens) == {2000, 2001, 2002, 2003}
    assert found.closing_ids[:2] == (2001, 2000)
    assert found.first_closing_ids[0] == 2003


def test_the_tags_of_a_response_template_come_first() -> None:
    fields = {"thinking": {"open": "<a>", "close": "</a>", "content": "text"}, "content": {"content": "text"}}
    template = {"start_anchor": "A:", "fields": fields}
    found = find_reply_format(Tokenizer("<think>", response_template=template))
    assert found.reasoning == ReasoningTags("<a>", "</a>")
    assert found.response_template is template


def test_several_chat_templates_are_searched() -> None:
    found = find_reply_format(Tokenizer({"default": "{{ messages }}", "reasoning": "<think>"}))
    assert isinstance(found.reasoning, ReasoningTags)


THINK = ReplyFormat(
    reasoning=ReasoningTags("<think>", "</think>"),
    opening_ids=(0,),
    closing_ids=(1, 2),
    first_closing_ids=(3,),
)


@pytest.mark.parametrize(
    ("room", "budget", "is_counted", "max_tokens", "counts"),
    [
        (100, None, False, 98, False),  # two tokens are kept for the closing tag
        (100, 10, False, 10, False),
        (100, None, True, None, True),
        (100, 10, True, 10, True),
        (2, None, False, None, True),  # no room beyond max_new_tokens
        (2, 10, False, 10, True),
    ],
)
def test_the_limit_of_reasoning_is_the_budget_or_the_room(
    room: int, budget: int | None, is_counted: bool, max_tokens: int | None, counts: bool
) -> None:
    reasoning = THINK.reasoning_of("", room=room, budget=budget, is_counted=is_counted)
    assert reasoning is not None
    assert (reasoning.max_tokens, reasoning.is_counted) == (max_tokens, counts)
    assert reasoning.num_extra_tokens <= (0 if counts else room)


@pytest.mark.parametrize(
    ("prompt_end", "budget", "may_begin", "may_reason"),
    [
        ("<|assistant|>", None, True, True),
        ("<|assistant|><think>\n", None, False, True),
        ("<|assistant|><think>\n\n</think>\n\n", None, False, False),
        ("<|assistant|>", 0, False, False),
    ],
)
def test_a_reply_may_begin_to_reason_where_the_prompt_has_not_decided_it(
    prompt_end: str, budget: int | None, may_begin: bool, may_reason: bool
) -> None:
    reply_format = replace(THINK, opening_ids=(5,), separator_ids=(7,))
    reasoning = reply_format.reasoning_of(prompt_end, room=100, budget=budget)
    assert reasoning is not None
    assert (tuple(reasoning.opening_ids), reasoning.num_opening) == ((5,) if may_begin else (), 1)
    assert tuple(reasoning.separator_ids) == ((7,) if may_reason else ())


def test_prompts_leave_room_for_reasoning() -> None:
    assert THINK.reserved_tokens(100, None, 1000) == 100 + 3
    assert THINK.reserved_tokens(100, 20, 1000) == 20 + 3
    assert THINK.reserved_tokens(900, None, 1000) == 50  # half of what there is
