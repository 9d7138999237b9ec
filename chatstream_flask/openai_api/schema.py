"""The bodies of requests as msgspec types; what they allow is checked in one go."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert

from .errors import ApiError
from .message_schema import Message, NamedTool, Tool

MAX_CHOICES = 8

StopString = Annotated[str, Meta(min_length=1, max_length=256)]
TokenCount = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class JsonSchema(Struct):
    schema: dict[str, Any]


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    include_usage: bool = False


class Body(Struct, kw_only=True):
    """What both kinds of completions have in common; fields that are not here have no effect."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # 0 and -1: off
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: TokenCount | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=1024)] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        raise NotImplementedError


class ChatBody(Body, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=512)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Body, kw_only=True):
    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=MAX_CHOICES)]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def num_choices(self) -> int:
        """Of all prompts together."""
        num = (self.n or 1) * len(self.prompts)
        if num > MAX_CHOICES:
            raise ApiError(f"n times the prompts makes {num} choices; at most {MAX_CHOICES}", param="n")
        return num

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


def _prepare_types() -> None:
    """Let msgspec analyse the types now: at its first use two threads at once would crash the process."""
    for kind in (ChatBody, CompletionBody):
        with suppress(ValidationError):
            convert({}, kind)


_prepare_types()
