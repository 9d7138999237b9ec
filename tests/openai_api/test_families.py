"""Reasoning and tools of each family, by real tokenizers and templates: in the chat API and in /v1."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, ROOT, FamilyRunner, family_chat
from flask_fakes import Chat, read_events, say
from openai_fakes import answer, ask, chunks_of

from chatstream_flask.reply_format.deltas import message_of

QUESTION = [{"role": "user", "content": "2 + 2?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Tell the weather.", "parameters": CITY}
TOOLS = [{"type": "function", "function": WEATHER}]


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chat(tmp_path: Path, name: str) -> Iterator[Chat]:
    with family_chat(tmp_path, name) as chat:
        yield chat


def play(chat: Chat, script: str) -> None:
    assert isinstance(chat.runner, FamilyRunner)
    chat.runner.script = script


def both_ways(chat: Chat, **fields: Any) -> list[tuple[dict[str, Any], str]]:
    """Return message and finish reason of /v1, streamed and whole."""
    (whole,) = answer(chat, messages=QUESTION, **fields)["choices"]
    choices = [
        c
        for chunk in chunks_of(ask(chat, messages=QUESTION, stream=True, **fields))
        for c in chunk["choices"]
    ]
    deltas = [{key: value} for c in choices for key, value in c["delta"].items() if value and key != "role"]
    return [(whole["message"], whole["finish_reason"]), (message_of(deltas), choices[-1]["finish_reason"])]


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    functions = [call["function"] for call in message.get("tool_calls") or []]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def test_reasoning_and_answer_are_apart(chat: Chat, name: str) -> None:
    family = FAMILIES[name]
    play(chat, family.reasoning + family.answer)
    reasoning = "Hm." if family.reasoning else ""
    events = list(read_events(say(chat.client(), "2 + 2?")))
    texts = {
        kind: "".join(e.data["text"] for e in events if e.name == kind) for kind in ("reasoning", "text")
    }
    assert texts == {"reasoning": reasoning, "text": "It is 4."}
    for message, finish_reason in both_ways(chat):
        assert message["content"] == "It is 4."
        assert message.get("reasoning_content", "") == reasoning
        assert finish_reason == "stop"


def test_tool_calls_are_found_after_reasoning_and_their_history_is_accepted(chat: Chat, name: str) -> None:
    family = FAMILIES[name]
    play(chat, family.reasoning + family.call)
    for message, finish_reason in both_ways(chat, tools=TOOLS):
        assert calls_of(message) == [("weather", {"city": "Paris"})]
        assert not message["content"] and finish_reason == "tool_calls"
        assert message.get("reasoning_content", "") == ("Hm." if family.reasoning else "")
    play(chat, family.reasoning * family.reasons_after_tools + family.answer)
    result = {"role": "tool", "tool_call_id": message_id(message), "content": "Sunny, 21 degrees."}
    history = [*QUESTION, message, result]
    (choice,) = answer(chat, messages=history, tools=TOOLS)["choices"]
    assert choice["message"]["content"] == "It is 4."
    prompt = chat.chat_stream.source.decode(list(map(ord, chat.runner.prompts[-1])))
    assert "Sunny, 21 degrees." in prompt and prompt.count("Paris") == 1


def message_id(message: dict[str, Any]) -> str:
    (call,) = message["tool_calls"]
    return str(call["id"])


@pytest.mark.parametrize("name", ["Qwen3", "QwQ", "gpt-oss"])
def test_a_forced_call_may_follow_reasoning(chat: Chat, name: str) -> None:
    family = FAMILIES[name]
    header = family.call.partition("{")[0] if name == "gpt-oss" else ""
    play(chat, f'{family.reasoning}{header}{{"city": "Paris"}}')
    choice = {"type": "function", "function": {"name": "weather"}}
    for message, _ in both_ways(chat, tools=TOOLS, tool_choice=choice):
        assert calls_of(message) == [("weather", {"city": "Paris"})]
        assert not message["content"]
        assert message["reasoning_content"] == "Hm."


@pytest.mark.parametrize("name", ["Qwen3", "QwQ"])
def test_a_strict_function_may_be_called_after_reasoning_and_text(chat: Chat, name: str) -> None:
    family = FAMILIES[name]
    play(chat, f"{family.reasoning}Let me see. {family.call}")
    strict = [{"type": "function", "function": WEATHER | {"strict": True}}]
    for message, _ in both_ways(chat, tools=strict):
        assert calls_of(message) == [("weather", {"city": "Paris"})]
        assert message["content"] == "Let me see."
        assert message["reasoning_content"] == "Hm."


def test_the_page_of_models_lists_the_families() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    section = page.partition("\n## What is shown of each family\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| (yes|no) \| yes \|$", section, re.MULTILINE)
    assert rows == [(name, "yes" if family.reasoning else "no") for name, family in FAMILIES.items()]
