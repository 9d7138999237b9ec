"""Messages and tools of a request as msgspec types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]  # msgspec 0.22 crashes at exit on `Name | list`


class ContentPart(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct):
    name: Name
    arguments: str


class ToolCall(Struct):
    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"


class Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    function: Function
    type: Literal["function"]


class NamedFunction(Struct):
    name: str


class NamedTool(Struct):
    function: NamedFunction
    type: Literal["function"]
