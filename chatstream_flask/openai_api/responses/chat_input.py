"""From items of /v1/responses to the messages and tools of a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ApiError
from ..message_schema import (
    CalledFunction,
    ContentPart,
    Function,
    Message,
    NamedFunction,
    NamedTool,
    Tool,
    ToolCall,
)
from ..schema import ChatBody, JsonSchema, ResponseFormat
from .schema import FunctionTool, Item, Part, ResponsesBody

TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
LOGPROBS = "message.output_text.logprobs"


def chat_body(body: ResponsesBody, messages: Sequence[Message]) -> ChatBody:
    """Return the chat request that has the same answer.

    :param messages: those of the response that this one follows, and its own, without instructions
    :raises ApiError: a tool is of a kind that this model cannot use
    """
    instructions = [Message("system", body.instructions)] if body.instructions else []
    has_logprobs = body.top_logprobs is not None or LOGPROBS in (body.include or ())
    return ChatBody(
        messages=[*instructions, *messages],
        model=body.model,
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_output_tokens,
        logprobs=has_logprobs or None,
        top_logprobs=body.top_logprobs,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        response_format=_response_format(body),
        tools=[_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools)] if body.tools else None,
        tool_choice=_tool_choice(body),
        parallel_tool_calls=body.parallel_tool_calls,
        user=body.user,
        prompt_cache_key=body.prompt_cache_key,
        stream=body.stream,
    )


def new_messages(body: ResponsesBody) -> list[Message]:
    """Return the messages of the request's own input.

    :raises ApiError: an item is of a kind that this model cannot read, or lacks a field
    """
    if isinstance(body.input, str):
        return [Message("user", body.input)]
    messages: list[Message] = []
    for i, item in enumerate(body.input):
        _add(messages, item, f"input[{i}]")
    return messages


def answer_messages(output: Sequence[dict[str, Any]]) -> list[Message]:
    """Return the messages that the output items of a response make."""
    messages: list[Message] = []
    for item in output:
        texts = [part["text"] for part in item.get("content", ())]
        match item["type"]:
            case "reasoning":
                _last_of_assistant(messages, begins=True).reasoning_content = "".join(texts)
            case "message":
                _last_of_assistant(messages).content = "".join(texts)
            case _:
                _add_call(messages, item["call_id"], item["name"], item["arguments"])
    return messages


def _add(messages: list[Message], item: Item, param: str) -> None:
    match item.type or ("message" if item.role else None):
        case "message":
            content = _content(item.content, f"{param}.content")
            if item.role is None:
                raise _missing(f"{param}.role")
            if item.role == "assistant":
                _last_of_assistant(messages).content = content
            else:
                messages.append(Message(item.role, content))
        case "reasoning":
            text = "\n".join(_texts(item.content or [], f"{param}.content"))
            if text:
                _last_of_assistant(messages, begins=True).reasoning_content = text
        case "function_call":
            for name in ("call_id", "name", "arguments"):
                if getattr(item, name) is None:
                    raise _missing(f"{param}.{name}")
            _add_call(messages, item.call_id or "", item.name or "", item.arguments or "")
        case "function_call_output":
            if item.call_id is None:
                raise _missing(f"{param}.call_id")
            messages.append(
                Message("tool", _content(item.output, f"{param}.output"), tool_call_id=item.call_id)
            )
        case None:
            raise _missing(f"{param}.type")
        case kind:
            raise ApiError(
                f"an item of type {kind[:40]!r} cannot be read; allowed are message, reasoning, "
                "function_call and function_call_output",
                param=f"{param}.type",
                code="unsupported_parameter",
            )


def _last_of_assistant(messages: list[Message], *, begins: bool = False) -> Message:
    """Return the assistant's message that a further item belongs to: what it has said before calls it makes.

    :param begins: the item is the first of a message
    """
    last = messages[-1] if messages else None
    has_begun = last is not None and last.role == "assistant" and not last.content and not last.tool_calls
    if last is None or not has_begun or (begins and last.reasoning_content):
        last = Message("assistant")
        messages.append(last)
    return last


def _add_call(messages: list[Message], call_id: str, name: str, arguments: str) -> None:
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant":
        last = Message("assistant")
        messages.append(last)
    last.tool_calls = [*(last.tool_calls or ()), ToolCall(CalledFunction(name, arguments), call_id)]


def _content(content: str | list[Part] | None, param: str) -> str | list[ContentPart]:
    if content is None:
        raise _missing(param)
    if isinstance(content, str):
        return content
    return [ContentPart("text", text) for text in _texts(content, param)]


def _texts(content: str | list[Part], param: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    texts = []
    for i, part in enumerate(content):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in (*TEXT_PARTS, "refusal"):
            raise ApiError(
                f"a content part of type {part.type[:40]!r} cannot be read: this model reads text only",
                param=f"{param}[{i}].type",
                code="unsupported_parameter",
            )
        if text is None:
            raise _missing(f"{param}[{i}].text")
        texts.append(text)
    return texts


def _missing(param: str) -> ApiError:
    return ApiError(f"{param} is missing", param=param, code="missing_required_parameter")


def _response_format(body: ResponsesBody) -> ResponseFormat | None:
    given = body.text.format if body.text else None
    if body.text and body.text.verbosity not in (None, "medium"):
        raise ApiError(
            "text.verbosity is not supported", param="text.verbosity", code="unsupported_parameter"
        )
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return ResponseFormat("json_object")
    if given.schema is None:
        raise _missing("text.format.schema")
    return ResponseFormat("json_schema", JsonSchema(given.schema))


def _tool(tool: FunctionTool, param: str) -> Tool:
    if tool.type != "function":
        raise ApiError(
            f"a tool of type {tool.type[:40]!r} is not there; allowed is function",
            param=f"{param}.type",
            code="unsupported_parameter",
        )
    if tool.name is None:
        raise _missing(f"{param}.name")
    function = Function(
        name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
    )
    return Tool(function, "function")


def _tool_choice(body: ResponsesBody) -> Any:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice
    return NamedTool(NamedFunction(choice.name), "function")
