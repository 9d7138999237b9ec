"""Other forms of the same messages, for chat templates that refuse the usual one or lose a part of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

CALL_TAGS = ("<tool_call>", "</tool_call>")  # of Hermes and Qwen, each on a line of its own
RESULT_TAGS = ("<tool_response>", "</tool_response>")

Message = dict[str, Any]
Form = Callable[[Sequence[Message]], list[Message]]


def text_of(message: Message) -> str:
    """Return the text of a message; parts become lines."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def content_as_text(messages: Sequence[Message]) -> list[Message]:
    """Join the text parts of each content, one part a line."""
    return [
        message | {"content": text_of(message)} if _is_parts(message.get("content")) else message
        for message in messages
    ]


def content_as_parts(messages: Sequence[Message]) -> list[Message]:
    """Make a list with one text part out of each content."""
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def arguments_as_object(messages: Sequence[Message]) -> list[Message]:
    """Parse the arguments of tool calls that are JSON objects; most templates write the JSON themselves."""
    return _with_calls(messages, lambda call: call | {"arguments": _as_object(call["arguments"])})


def arguments_as_text(messages: Sequence[Message]) -> list[Message]:
    """Write the arguments of tool calls as JSON; DeepSeek's templates expect it."""
    return _with_calls(messages, lambda call: call | {"arguments": _as_json(call["arguments"])})


def short_call_ids(messages: Sequence[Message]) -> list[Message]:
    """Shorten the ids of tool calls to nine letters and digits; Mistral's templates refuse others."""

    def short(call_id: str) -> str:
        if len(call_id) == 9 and call_id.isalnum():
            return call_id
        return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:9]

    shortened = []
    for message in messages:
        if message.get("tool_call_id"):
            message = message | {"tool_call_id": short(message["tool_call_id"])}
        if message.get("tool_calls"):
            calls = [call | {"id": short(call.get("id") or "")} for call in message["tool_calls"]]
            message = message | {"tool_calls": calls}
        shortened.append(message)
    return shortened


def plan_of_calls(messages: Sequence[Message]) -> list[Message]:
    """Name the text beside tool calls `tool_plan` as well, as Cohere's templates do."""
    return [
        message | {"tool_plan": message["content"]} if _is_beside_calls(message) else message
        for message in messages
    ]


def calls_apart(messages: Sequence[Message]) -> list[Message]:
    """Put the text beside tool calls into a message of its own, before the calls."""
    apart: list[Message] = []
    for message in messages:
        if _is_beside_calls(message):
            apart += [{"role": message["role"], "content": message["content"]}, message | {"content": ""}]
        else:
            apart.append(message)
    return apart


def later_system_in_user(messages: Sequence[Message]) -> list[Message]:
    """Put system messages, except those at the start, in front of a user message: see `system_in_user`."""
    num_first = next((i for i, message in enumerate(messages) if message["role"] != "system"), 0)
    return [*messages[:num_first], *system_in_user(messages[num_first:])]


def system_in_user(messages: Sequence[Message]) -> list[Message]:
    """Put the text of system messages in front of the next user message, or else of the last."""
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return list(messages)
    texts: dict[int, list[str]] = {i: [] for i in users}
    for i, message in enumerate(messages):
        if message["role"] == "system":
            texts[next((user for user in users if user > i), users[-1])].append(text_of(message))
    return [
        message | {"content": "\n\n".join([*texts[i], text_of(message)])} if texts.get(i) else message
        for i, message in enumerate(messages)
        if message["role"] != "system"
    ]


def tools_in_words(messages: Sequence[Message]) -> list[Message]:
    """Write tool calls and their results as text, in the form of Hermes and Qwen."""
    told: list[Message] = []
    is_result = False
    for message in messages:
        if calls := message.get("tool_calls"):
            texts = [text_of(message)] if message.get("content") else []
            texts += [_between(CALL_TAGS, _as_json(_named(call))) for call in calls]
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            told.append(rest | {"content": "\n".join(texts)})
        elif message["role"] == "tool":
            text = _between(RESULT_TAGS, text_of(message))
            if is_result:
                told[-1] = told[-1] | {"content": f"{told[-1]['content']}\n{text}"}
            else:
                told.append({"role": "user", "content": text})
        else:
            told.append(message)
        is_result = message["role"] == "tool"
    return told


FORMS: list[Form] = [  # what changes least first
    content_as_text,
    arguments_as_object,
    arguments_as_text,
    short_call_ids,
    plan_of_calls,
    calls_apart,
    later_system_in_user,
    system_in_user,
    tools_in_words,
    content_as_parts,
]


def in_forms(messages: Sequence[Message], forms: Sequence[Form]) -> list[Message]:
    """Return the messages in some forms, one after the other."""
    messages = list(messages)
    for form in forms:
        messages = form(messages)
    return messages


def _between(tags: tuple[str, str], text: str) -> str:
    return f"{tags[0]}\n{text}\n{tags[1]}"


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(part.get("text"), str) for part in content)


def _is_beside_calls(message: Message) -> bool:
    return bool(message.get("content")) and bool(message.get("tool_calls"))


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_object(value: Any) -> Any:
    with suppress(ValueError, TypeError, RecursionError):
        if isinstance(parsed := json.loads(value), dict):
            return parsed
    return value


def _named(call: Message) -> Message:
    function = call["function"]
    return {"name": function["name"], "arguments": _as_object(function["arguments"])}


def _with_calls(messages: Sequence[Message], change: Callable[[Message], Message]) -> list[Message]:
    """Return the messages with the function of each tool call changed."""
    return [
        message
        | {"tool_calls": [call | {"function": change(call["function"])} for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]
