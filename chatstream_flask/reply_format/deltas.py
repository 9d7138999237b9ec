"""Deltas: what the chunks of an answer add to a message."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

Delta = dict[str, Any]  # with one field
CALLS = "tool_calls"
ANNOTATIONS = "annotations"  # sources that the server shows with a reply; no part of its text


def make_call(index: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def call_of(value: Any) -> tuple[str, str] | None:
    """Return name and arguments of a tool call as a model wrote it; None if it is no call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    try:
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "{}")
        return value["name"], json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None


def merged(deltas: list[Delta]) -> list[Delta]:
    """Join neighbouring deltas with text of the same field."""
    joined: list[Delta] = []
    for delta in deltas:
        (name, value), *_ = delta.items()
        if joined and isinstance(value, str) and name in joined[-1]:
            joined[-1] = {name: joined[-1][name] + value}
        else:
            joined.append(delta)
    return joined


def message_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """Return the message that the deltas add up to."""
    content: dict[str, str] = {}
    annotations: list[dict[str, Any]] = []
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for name, value in delta.items():
            if name == ANNOTATIONS:
                annotations += value
                continue
            if name != CALLS:
                content[name] = content.get(name, "") + value
                continue
            for call in value:
                if call["index"] in calls:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                else:
                    calls[call["index"]] = call | {"function": dict(call["function"])}
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls else "",
        "refusal": None,
        **content,
    }
    if annotations:
        message[ANNOTATIONS] = annotations
    if calls:
        message[CALLS] = [{k: v for k, v in calls[i].items() if k != "index"} for i in sorted(calls)]
    return message
