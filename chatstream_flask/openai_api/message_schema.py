"""Messages and tools of a request as msgspec types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]  # msgspec 0.22 crashes at exit on `Name | list`


class ContentPart(Struct):
    """A part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct):
    """The function of a tool call, with its arguments as JSON."""

    name: Name
    arguments: str


class ToolCall(Struct):
    """A tool call in a message of the assistant."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"


class Message(Struct):
    """A message of a chat request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # the same under another name
    function_call: Any = None
    audio: Any = None


class Function(Struct):
    """A function that the model may call, with the JSON schema of its arguments."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    """A tool that the model may use."""

    function: Function
    type: Literal["function"]


class NamedFunction(Struct):
    """The function that tool_choice names."""

    name: str


class NamedTool(Struct):
    """A tool_choice that names one tool."""

    function: NamedFunction
    type: Literal["function"]
