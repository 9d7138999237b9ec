"""Histories of conversations: what the API has sent is accepted again, and a last message is continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask_fakes import Chat, ScriptedRunner
from openai_fakes import CALL, HELLO, TOOLS, answer, ask, chunks_of, refusal, running_api

from chatstream_flask.openai_api.message_schema import Message
from chatstream_flask.openai_api.messages import template_messages
from chatstream_flask.openai_api.parse_body import parse_body
from chatstream_flask.openai_api.schema import ChatBody
from chatstream_flask.reply_format.deltas import message_of


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    """Answers with text and a call of "f"."""
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "Well. " + CALL)) as chat:
        yield chat


def rendered(**fields: Any) -> dict[str, Any]:
    """Return a message of the assistant as the chat template gets it."""
    (message,) = template_messages([msgspec.convert({"role": "assistant", **fields}, Message)])
    return message


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


# -- what was sent comes back --------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [3, 30, None])
def test_an_answer_is_accepted_as_a_part_of_the_next_request(max_tokens: int | None, chat: Chat) -> None:
    fields: dict[str, Any] = {"tools": TOOLS} | ({"max_tokens": max_tokens} if max_tokens else {})
    message = answer(chat, **fields)["choices"][0]["message"]
    calls = message.get("tool_calls", [])
    assert bool(calls) == (max_tokens is None)  # a call that was cut is text
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "42"} for c in calls]
    answer(chat, messages=[*HELLO, message, *results, *HELLO], tools=TOOLS)


def test_a_streamed_call_that_was_cut_is_accepted_as_a_part_of_the_next_request(chat: Chat) -> None:
    chunks = chunks_of(
        ask(
            chat,
            tools=TOOLS,
            stream=True,
            max_tokens=len('Well. <tool_call>\n{"name": "f", "arguments": {"a": '),
        )
    )
    message = message_of(chunk["choices"][0]["delta"] | {} for chunk in chunks)
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a": '
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": ""}
    answer(chat, messages=[*HELLO, message, result], tools=TOOLS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"content": None}, {"content": ""}),
        ({"content": None, "refusal": "I must not."}, {"content": "I must not."}),
        ({"content": "a", "refusal": None, "audio": None, "function_call": None}, {"content": "a"}),
        ({"content": "a", "tool_calls": None}, {"content": "a"}),
        ({"content": "a", "tool_calls": []}, {"content": "a"}),
        (
            {"content": "a", "reasoning_content": "b", "reasoning": "b"},
            {"content": "a", "reasoning_content": "b"},
        ),
        ({"content": "a", "reasoning": "b"}, {"content": "a", "reasoning_content": "b"}),
        ({"content": "a", "annotations": [], "unknown": 1}, {"content": "a"}),
    ],
)
def test_fields_of_answers(fields: dict[str, Any], message: dict[str, Any]) -> None:
    assert rendered(**fields) == {"role": "assistant", **message}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ("", {}),
        ("null", "null"),
        ("[1]", "[1]"),
        ('"text"', '"text"'),
        ('{"a": "cut o', '{"a": "cut o'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_may_be_any_text(arguments: str, given: Any) -> None:
    (rendered_call,) = rendered(content=None, tool_calls=[call(arguments)])["tool_calls"]
    assert rendered_call == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": given},
    }


def test_thousands_of_messages(tmp_path: Path) -> None:
    messages = [{"role": role, "content": ""} for role in ("user", "assistant")] * 1000
    with running_api(tmp_path, context_len=7000) as chat:
        assert answer(chat, messages=[*messages, *HELLO])["choices"][0]["message"]["content"] == "ok"


@pytest.mark.parametrize(
    ("message", "param", "sentence"),
    [
        ({"role": "user", "content": None}, "messages[1].content", "content is missing"),
        (
            {"role": "user", "content": "", "tool_calls": [call("{}")]},
            "messages[1].tool_calls",
            "only messages",
        ),
        ({"role": "user", "content": "", "reasoning": "x"}, "messages[1].reasoning", "only messages of the"),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            "messages[1].function_call",
            "function_call is not supported: use tool_calls",
        ),
        ({"role": "assistant", "audio": {"id": "x"}}, "messages[1].audio", "audio is not supported"),
    ],
)
def test_what_a_message_cannot_have_is_400(message: Any, param: str, sentence: str, chat: Chat) -> None:
    error = refusal(ask(chat, messages=[*HELLO, message]), 400)
    assert error["param"] == param
    assert sentence in error["message"]


# -- the last message is continued ---------------------------------------------------------------------


def test_a_last_message_of_the_assistant_is_continued_where_asked(chat: Chat) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Well"}]
    cases: list[tuple[dict[str, Any], dict[str, bool]]] = [
        ({}, {}),
        ({"add_generation_prompt": True, "continue_final_message": False}, {}),
        ({"add_generation_prompt": False}, {"add_generation_prompt": False}),
        ({"continue_final_message": True}, {"add_generation_prompt": False, "continue_final_message": True}),
    ]
    for fields, options in cases:
        body = {"model": "m", "messages": messages, **fields}
        assert parse_body(json.dumps(body).encode(), ChatBody).template_options == options
        answer(chat, messages=messages, **fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"messages": HELLO}, "needs a last message that is text of the assistant"),
        ({"add_generation_prompt": True}, "contradict each other"),
        ({"response_format": {"type": "json_object"}}, "cannot be combined with a format of the answer"),
        ({"tools": TOOLS, "tool_choice": "required"}, "cannot be combined with a format of the answer"),
    ],
)
def test_what_cannot_be_continued_is_400(fields: dict[str, Any], sentence: str, chat: Chat) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Well"}]
    error = refusal(ask(chat, **{"messages": messages, "continue_final_message": True, **fields}), 400)
    assert error["param"] == "continue_final_message"
    assert sentence in error["message"]


def test_two_messages_of_the_assistant_at_the_end_are_400(chat: Chat) -> None:
    messages = [*HELLO, *[{"role": "assistant", "content": "Well"}] * 2]
    error = refusal(ask(chat, messages=messages), 400)
    assert (error["param"], error["message"]) == (
        "messages",
        "the last two messages are both the assistant's; join them",
    )
