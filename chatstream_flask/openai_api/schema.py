"""Request bodies as msgspec types, which check all fields at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, cast

from msgspec import Meta, Struct, ValidationError, convert

from ..config import (
    MAX_ALLOWED_TOKENS,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGIT_BIASES,
    MAX_LOGPROBS,
    MAX_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_STOP_STRING_LEN,
    MAX_TEMPERATURE,
    MIN_REPETITION_PENALTY,
)
from ..prompts.template_params import ReasoningEffort
from .errors import ApiError
from .message_schema import Message, NamedTool, Tool

MAX_CHOICES = 8
MAX_MESSAGES = 4096
MAX_STOP_TOKENS = 64

StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_STRING_LEN)]
TokenCount = Annotated[int, Meta(ge=1, le=2**63 - 1)]
TopCount = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]
TokenId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1)]
AllowedIds = Annotated[list[TokenId], Meta(min_length=1, max_length=MAX_ALLOWED_TOKENS)]
Choices = Annotated[list[str], Meta(min_length=1)]
Penalty = Annotated[float, Meta(ge=-MAX_PENALTY, le=MAX_PENALTY)]
Bias = Annotated[float, Meta(ge=-MAX_LOGIT_BIAS, le=MAX_LOGIT_BIAS)]
RepetitionPenalty = Annotated[float, Meta(ge=MIN_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)]


class JsonSchema(Struct):
    """The field json_schema of a response format."""

    schema: dict[str, Any]


class ResponseFormat(Struct):
    """The field response_format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None  # of a json_object, as llama.cpp has it


class StructuredOutputs(Struct):
    """The field structured_outputs of vLLM."""

    json: dict[str, Any] | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    structural_tag: Any = None


class StreamOptions(Struct):
    """The field stream_options."""

    include_usage: bool = False


class Body(Struct, kw_only=True):
    """Fields of both kinds of completions; other fields are ignored."""

    model: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # 0 or -1 turns it off
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: TokenCount | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    repetition_penalty: RepetitionPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=MAX_LOGIT_BIASES)] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    min_new_tokens: Annotated[int, Meta(ge=0)] | None = None  # the same, of SGLang
    n_predict: Annotated[int, Meta(ge=-1)] | None = None  # max_tokens, of llama.cpp; -1 is no limit
    allowed_token_ids: AllowedIds | None = None
    bad_words: Annotated[list[StopString], Meta(max_length=MAX_BAD_WORDS)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None  # 0 and -1: as the context allows
    prompt_logprobs: TopCount | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    format: dict[str, Any] | str | None = None

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_tokens or (self.n_predict if self.n_predict != -1 else None)

    @property
    def num_logprobs(self) -> int | None:
        raise NotImplementedError

    @property
    def num_prompt_logprobs(self) -> int | None:
        """How many of the most likely tokens to compute at each token of the prompt; None: nothing."""
        if self.stream and self.prompt_logprobs is not None:
            raise ApiError(
                "prompt_logprobs cannot be streamed; leave out stream, or ask for echo with logprobs on "
                "/v1/completions",
                param="prompt_logprobs",
                code="unsupported_parameter",
            )
        return self.prompt_logprobs


class ChatBody(Body, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    reasoning_effort: ReasoningEffort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    thinking_token_budget: Annotated[int, Meta(ge=0)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def template_options(self) -> dict[str, bool]:
        """Options of the chat template that say how the prompt ends."""
        if not self.continue_final_message:
            return {} if self.add_generation_prompt in (None, True) else {"add_generation_prompt": False}
        if self.add_generation_prompt:
            raise ApiError(
                "continue_final_message and add_generation_prompt contradict each other",
                param="continue_final_message",
            )
        if self.messages[-1].role != "assistant" or self.messages[-1].tool_calls:
            raise ApiError(
                "continue_final_message needs a last message that is text of the assistant",
                param="continue_final_message",
            )
        return {"add_generation_prompt": False, "continue_final_message": True}

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or super().max_new_tokens

    @property
    def num_logprobs(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Body, kw_only=True):
    """Body of POST /v1/completions."""

    prompt: str | Annotated[list[str | TokenId | TokenIds], Meta(min_length=1)]
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    echo: bool | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None  # 0: only compute the prompt
    logprobs: TopCount | None = None

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts, each a text or its token ids."""
        match self.prompt:
            case str(text):
                return [text]
            case [int(), *_] as ids if all(isinstance(token_id, int) for token_id in ids):
                return [cast(list[int], ids)]
            case [str(), *_] as texts if all(isinstance(text, str) for text in texts):
                return cast(list[str], texts)
            case [list(), *_] as lists if all(isinstance(ids, list) for ids in lists):
                return cast(list[list[int]], lists)
        raise ApiError("prompt must be a text, token ids, or a list of texts or of token ids", param="prompt")

    @property
    def num_choices(self) -> int:
        """The number of choices of all prompts together."""
        num = (self.n or 1) * len(self.prompts)
        if num > MAX_CHOICES:
            raise ApiError(
                f"n times the number of prompts is {num} choices; at most {MAX_CHOICES} are allowed",
                param="n",
            )
        return num

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def max_new_tokens(self) -> int | None:
        return 0 if self.max_tokens == 0 else super().max_new_tokens

    @property
    def echoes_logprobs(self) -> bool:
        """Whether the prompt in the answer has log-probabilities."""
        return bool(self.echo) and self.logprobs is not None

    @property
    def num_prompt_logprobs(self) -> int | None:
        asked = super().num_prompt_logprobs
        return max(asked or 0, self.logprobs or 0) if self.echoes_logprobs else asked


class TokenizeBody(Struct, forbid_unknown_fields=True):
    """Body of POST /tokenize for a text: `prompt` and its fields of vLLM, `content` and its of llama.cpp."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: Literal[True] | None = None  # control tokens are always recognised
    return_token_strs: bool | None = None

    @property
    def adds_special_tokens(self) -> bool | None:
        """Whether the tokenizer adds its own; each server has its own default."""
        if self.prompt is None:
            return bool(self.add_special)
        return True if self.add_special_tokens is None else self.add_special_tokens


class DetokenizeBody(Struct, forbid_unknown_fields=True):
    """Body of POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None


def _prepare_types() -> None:
    """Let msgspec analyse the types now: at its first use two threads at once would crash the process."""
    for kind in (ChatBody, CompletionBody, TokenizeBody, DetokenizeBody):
        with suppress(ValidationError):
            convert({}, kind)


_prepare_types()
