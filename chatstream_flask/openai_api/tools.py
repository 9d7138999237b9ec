"""Tools: which the model is shown, which it must call, and how its calls are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..reply_format.family import ReplyFormat
from ..reply_format.reply_parser import ReplyParser, TextReply
from ..reply_format.tools.call_parser import ToolCallParser
from ..reply_format.tools.syntax import forced_syntax
from .errors import ApiError
from .message_schema import NamedTool, Tool
from .schema import ChatBody
from .schema_union import moved


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request."""

    tools: list[dict[str, Any]] = field(default_factory=list)  # as the chat template expects them
    forced: tuple[str, ...] = ()  # names, of which the model must call one
    is_single: bool = False  # whether a reply has one call at most
    strict: frozenset[str] = frozenset()  # names, whose arguments must conform to their schemas

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool["function"]["name"] for tool in self.tools)

    def parameters_of(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of a function's arguments, which are an object."""
        function = next(tool["function"] for tool in self.tools if tool["function"]["name"] == name)
        return {"type": "object", "properties": {}} | (function.get("parameters") or {})

    def call_schemas(self, key: str) -> list[dict[str, Any]]:
        """Return a JSON schema for the calls of each function.

        :param key: the key of the arguments in a call
        """
        return [
            {
                "type": "object",
                "properties": {
                    "name": {"const": name},
                    key: moved(self.parameters_of(name), f"#/properties/{key}"),
                },
                "required": ["name", key],
                "additionalProperties": False,
            }
            for name in self.names
        ]


def tool_use(body: ChatBody) -> ToolUse:
    """Return the tools and the forced calls of a request.

    :raises ApiError: tool_choice names no tool of the request, or two tools have the same name
    """
    choice = body.tool_choice or "auto"
    if not body.tools:
        if choice not in ("auto", "none"):
            raise ApiError("tool_choice names a tool, but there are no tools", param="tool_choice")
        return ToolUse()
    if choice == "none":
        return ToolUse()
    tools = [_template_tool(tool) for tool in body.tools]
    names = tuple(dict.fromkeys(tool.function.name for tool in body.tools))
    if len(names) < len(tools):
        raise ApiError("two tools have the same name", param="tools")
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            raise ApiError(f"tool_choice must be one of {', '.join(names)}", param="tool_choice")
        return ToolUse(tools, (choice.function.name,))
    strict = frozenset(tool.function.name for tool in body.tools if tool.function.strict)
    return ToolUse(
        tools, names if choice == "required" else (), body.parallel_tool_calls is False, strict=strict
    )


def reply_parser(use: ToolUse, reply_format: ReplyFormat, *, is_free: bool, streams: bool) -> ReplyParser:
    """Return a parser of one reply, which finds its tool calls.

    :param is_free: whether the request asks for no format of the answer
    :param streams: return the pieces of a call before it is complete
    """
    if use.forced:
        return ToolCallParser(forced_syntax(use.forced), use.tools, streams=streams)
    if is_free:
        return reply_format.make_parser(use.tools, streams=streams)
    if not use.tools:
        return TextReply()
    return ToolCallParser(
        reply_format.constrained_syntax, use.tools, streams=streams, kept_tokens=reply_format.tool_tokens
    )


def _template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool without fields that are not set, because templates print nulls, and without `strict`."""
    given = msgspec.to_builtins(tool.function)
    function = {k: v for k, v in given.items() if v is not None and k != "strict"}
    return {"type": "function", "function": function}
