"""Tools: which the model is shown, and which it must call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import ApiError
from .message_schema import NamedTool, Tool
from .schema import ChatBody

EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request."""

    tools: list[dict[str, Any]] = field(default_factory=list)  # as the chat template expects them
    forced: tuple[str, ...] = ()  # names, of which the model must call one

    @property
    def forced_schema(self) -> dict[str, Any] | None:
        """JSON schema of a forced call; None if no call is forced.

        With one function it describes its arguments, with several {"name": ..., "arguments": ...}.
        """
        schemas = {t["function"]["name"]: t["function"].get("parameters") or EMPTY for t in self.tools}
        if not self.forced:
            return None
        if len(self.forced) == 1:
            return schemas[self.forced[0]]
        return {
            "anyOf": [_call_schema(name, schemas[name], f"#/anyOf/{i}") for i, name in enumerate(self.forced)]
        }


def tool_use(body: ChatBody) -> ToolUse:
    """Return the tools and the forced calls of a request.

    :raises ApiError: tool_choice names no tool of the request, or the tools contradict another field
    """
    choice = body.tool_choice or "auto"
    if not body.tools:
        if choice not in ("auto", "none"):
            raise ApiError("tool_choice names a tool, but there are no tools", param="tool_choice")
        return ToolUse()
    if choice == "none":
        return ToolUse()
    if body.response_format is not None and body.response_format.type != "text":
        raise ApiError("response_format must be text if there are tools", param="response_format")
    tools = [_template_tool(tool) for tool in body.tools]
    names = tuple(dict.fromkeys(tool.function.name for tool in body.tools))
    if len(names) < len(tools):
        raise ApiError("two tools have the same name", param="tools")
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            raise ApiError(f"tool_choice must be one of {', '.join(names)}", param="tool_choice")
        return ToolUse(tools, (choice.function.name,))
    return ToolUse(tools, names if choice == "required" else ())


def _template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool without fields that are not set, because templates print nulls."""
    function = {k: v for k, v in msgspec.to_builtins(tool.function).items() if v is not None}
    return {"type": "function", "function": function}


def _call_schema(name: str, parameters: dict[str, Any], place: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "arguments": _moved(parameters, f"{place}/properties/arguments"),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """Return a schema with its references changed for its place in a larger schema."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    if isinstance(moved.get("$ref"), str) and moved["$ref"].startswith("#"):
        moved["$ref"] = place + moved["$ref"].removeprefix("#")
    return moved
