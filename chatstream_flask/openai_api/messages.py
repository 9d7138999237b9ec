"""Messages of a request as chat templates expect them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from .errors import ApiError
from .message_schema import Message, ToolCall

ROLES = {"developer": "system"}  # templates have no such role


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Return the messages as plain dictionaries.

    :raises ApiError: a message has content other than text, or lacks what its role needs
    """
    called: dict[str | None, str] = {}  # name of the function, by the id of the call
    rendered = []
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        _check(message, param)
        plain: dict[str, Any] = {"role": ROLES.get(message.role, message.role)}
        plain["content"] = _content(message, f"{param}.content")
        if reasoning := message.reasoning_content or message.reasoning:
            plain["reasoning_content"] = reasoning
        if message.tool_calls:
            plain["tool_calls"] = [_call(call) for call in message.tool_calls]
            called |= {call.id: call.function.name for call in message.tool_calls}
        if message.role == "tool":
            plain["tool_call_id"] = message.tool_call_id or ""
            plain["name"] = message.name or called.get(message.tool_call_id, "")
        elif message.name:
            plain["name"] = message.name
        rendered.append(plain)
    if [message.role for message in messages[-2:]] == ["assistant"] * 2:
        raise ApiError("the last two messages are both the assistant's; join them", param="messages")
    return rendered


def _check(message: Message, param: str) -> None:
    """Refuse fields that the role does not have, and contents that are missing."""
    if message.role != "assistant":
        for name in ("tool_calls", "refusal", "reasoning_content", "reasoning"):
            if getattr(message, name):
                raise ApiError(f"only messages of the assistant may have {name}", param=f"{param}.{name}")
        if message.content is None:
            raise ApiError(f"{param}.content is missing", param=f"{param}.content")
    for name, instead in (("function_call", "tool_calls"), ("audio", "content")):
        if getattr(message, name) is not None:
            raise ApiError(
                f"{param}.{name} is not supported: use {instead}",
                param=f"{param}.{name}",
                code="unsupported_parameter",
            )


def _content(message: Message, param: str) -> str | list[dict[str, str]]:
    """Return the text of a message, in parts if it was sent so."""
    if not isinstance(message.content, list):
        return message.content or message.refusal or ""
    parts = []
    for i, part in enumerate(message.content):
        text = {"text": part.text, "refusal": part.refusal}.get(part.type)
        if part.type not in ("text", "refusal"):
            raise ApiError(
                f"a content part of type {part.type[:40]!r} cannot be read: this model reads text only, "
                "so every part must be of type 'text'",
                param=f"{param}[{i}].type",
            )
        if text is None:
            raise ApiError(f"{param}[{i}].{part.type} is missing", param=f"{param}[{i}].{part.type}")
        parts.append({"type": "text", "text": text})
    return parts or ""


def _call(call: ToolCall) -> dict[str, Any]:
    """Return a call with its arguments as an object, which most templates write as JSON themselves.

    Arguments that are no object, such as those of a call that was cut off, stay the text that they are.
    """
    arguments: Any = call.function.arguments
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        if isinstance(value := msgspec.json.decode(arguments or "{}"), dict):
            arguments = value
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or "", "type": "function", "function": function}
