"""Messages of a request as chat templates expect them."""

from __future__ import annotations

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
        if message.tool_calls and message.role != "assistant":
            raise ApiError("only messages of the assistant may have tool_calls", param=f"{param}.tool_calls")
        if message.content is None and not message.tool_calls:
            raise ApiError(f"{param}.content is missing", param=f"{param}.content")
        plain: dict[str, Any] = {"role": ROLES.get(message.role, message.role)}
        plain["content"] = _text(message, f"{param}.content")
        if message.tool_calls:
            plain["tool_calls"] = [_call(call, f"{param}.tool_calls") for call in message.tool_calls]
            called |= {call.id: call.function.name for call in message.tool_calls}
        if message.role == "tool":
            plain["tool_call_id"] = message.tool_call_id or ""
            plain["name"] = message.name or called.get(message.tool_call_id, "")
        elif message.name:
            plain["name"] = message.name
        rendered.append(plain)
    return rendered


def _text(message: Message, param: str) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = []
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
        texts.append(text)
    return "\n".join(texts)


def _call(call: ToolCall, param: str) -> dict[str, Any]:
    """Return a call with its arguments as an object, which templates write as JSON themselves."""
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError(f"arguments must be a JSON object: {error}", param=param) from error
    if not isinstance(arguments, dict):
        raise ApiError("arguments must be a JSON object", param=param)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or "", "type": "function", "function": function}
