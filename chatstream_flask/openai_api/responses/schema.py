"""Bodies of POST /v1/responses as msgspec types."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert

from ...config import MAX_LOGPROBS, MAX_TEMPERATURE
from ...prompts.template_params import ReasoningEffort
from ..message_schema import Name
from ..schema import MAX_MESSAGES, TokenCount

MAX_METADATA = 16


class Part(Struct):
    """A part of an item's content, or of its output or summary."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(Struct):
    """An item of the input; which fields it has depends on its type."""

    type: str | None = None  # "message" if there is a role
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: Name | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None


class TextFormat(Struct):
    """The field text.format."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Text(Struct):
    """The field text."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Struct):
    """The field reasoning."""

    effort: ReasoningEffort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class FunctionTool(Struct):
    """A function that the model may call."""

    type: str
    name: Name | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(Struct):
    """A tool_choice that names one function."""

    type: Literal["function"]
    name: str


class ResponsesBody(Struct, kw_only=True):
    """Body of POST /v1/responses."""

    input: str | Annotated[list[Item], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: TokenCount | None = None
    temperature: Annotated[float, Meta(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=MAX_METADATA)] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.store is not False


# Fields that would change the answer, with the values that change nothing. Null changes nothing anywhere.
REFUSED: dict[str, tuple[Any, ...]] = {
    "conversation": (),
    "context_management": ([],),
    "enable_response_messages": (False,),
    "max_tool_calls": (),
    "moderation": (),
    "previous_input_messages": ([],),
    "prompt": (),
    "truncation": ("disabled",),
}

# Fields that change no answer: limits of hosted services, and options of what this server does not do.
HARMLESS = frozenset(
    [
        *("access_programs", "background_options", "image", "prompt_cache_options", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "stream_options"),
    ]
)

with suppress(ValidationError):  # msgspec analyses types at their first use, which must be in one thread
    convert({}, ResponsesBody)
