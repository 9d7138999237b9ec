"""Sampling settings of a request: its fields over the constructor's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..config import SamplingParams, shown
from ..errors import ConfigError
from ..prompts.template_params import TemplateParams
from .errors import ApiError
from .prompts import template_params
from .schema import Body, ChatBody

SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
MAX_SEED = 2**63


def sampling_params(
    body: Body, defaults: SamplingParams, grammar: str | None, bad_words_ids: tuple[tuple[int, ...], ...] = ()
) -> SamplingParams:
    """Return the settings of the first choice; max_new_tokens is at most the constructor's.

    :raises ApiError: a value is not allowed
    """
    given: dict[str, Any] = {name: getattr(body, name) for name in SAME_NAME}
    wanted = defaults.max_new_tokens if body.max_new_tokens is None else max(body.max_new_tokens, 1)
    given["max_new_tokens"] = min(wanted, defaults.max_new_tokens)
    given["min_new_tokens"] = body.min_tokens or body.min_new_tokens
    given["allowed_token_ids"] = body.allowed_token_ids and tuple(body.allowed_token_ids)
    given["include_stop_str_in_output"] = body.include_stop_str_in_output
    given["num_logprobs"] = body.num_logprobs
    given["num_prompt_logprobs"] = body.num_prompt_logprobs
    given["grammar"] = grammar
    given["bad_words_ids"] = bad_words_ids
    if body.top_k == -1:
        given["top_k"] = 0
    if body.seed is not None:
        given["seed"] = body.seed % MAX_SEED
    if body.stop:
        given["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if body.logit_bias:
        given["logit_bias"] = tuple((_token_id(key), bias) for key, bias in body.logit_bias.items())
    try:
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        raise ApiError(str(error)) from error


def bounded(
    params: SamplingParams, body: Body, prompts: Sequence[Sequence[int]], context_len: int
) -> SamplingParams:
    """Return the settings with max_new_tokens limited to the context.

    :raises ApiError: a prompt is empty, or prompt and requested tokens together exceed the context
    """
    param = "messages" if isinstance(body, ChatBody) else "prompt"
    if not all(prompts):
        raise ApiError("the prompt is empty", param=param)
    num_prompt = max(map(len, prompts))
    asked = body.max_new_tokens
    num_new = params.max_new_tokens if asked else int(asked is None)
    if num_prompt + num_new > context_len:
        raise ApiError(
            f"This model's maximum context length is {context_len} tokens, and the prompt is too long: it "
            f"has {num_prompt}, and {num_new} more {'is' if num_new == 1 else 'are'} asked for; shorten it, "
            "or ask for fewer",
            param=param,
            code="context_length_exceeded",
            num_tokens=num_prompt,
            n_prompt_tokens=num_prompt,
            n_ctx=context_len,
        )
    max_new_tokens = max(min(params.max_new_tokens, context_len - num_prompt), 1)
    min_new_tokens = min(params.min_new_tokens, max_new_tokens)
    return replace(params, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens)


def reasoning_limit(
    body: ChatBody, defaults: SamplingParams, template_defaults: TemplateParams
) -> int | None:
    """Return how many tokens the model may reason: the least of what the request and the app allow."""
    given = template_params(body)
    says = given.enable_thinking is not None or given.reasoning_effort is not None
    if (given if says else template_defaults).is_thinking_off:
        return 0
    limits = (body.thinking_token_budget, defaults.max_reasoning_tokens)
    return min((limit for limit in limits if limit is not None), default=None)


def for_choice(params: SamplingParams, index: int) -> SamplingParams:
    """Return the settings of a choice: the first has the requested seed, each further one the next."""
    if params.seed is None or index == 0:
        return params
    return replace(params, seed=(params.seed + index) % MAX_SEED)


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 9):
        raise ApiError(f"a key of logit_bias must be a token id, not {shown(key)}", param="logit_bias")
    return int(key)
