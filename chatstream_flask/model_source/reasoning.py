"""The room that a prompt leaves, and how a reply to it reasons within that room."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import ContextPolicy, SamplingParams
from ..engine.reasoning import Reasoning
from ..errors import PromptTooLong
from ..prompts import AbstractChatPrompt
from ..prompts.fit import FittedPrompt
from .protocol import ModelSource

PROMPT_END_LEN = 64  # tokens; a template that begins the reasoning writes its tag at the very end


def reasoning_of(
    source: ModelSource, prompt_ids: Sequence[int], params: SamplingParams, *, is_counted: bool = False
) -> Reasoning | None:
    """Return how a reply to the prompt reasons; None if the model does not.

    :param is_counted: whether max_new_tokens limits reasoning and answer together
    """
    if source.reply_format.reasoning is None:
        return None
    return source.reply_format.reasoning_of(
        source.decode(prompt_ids[-PROMPT_END_LEN:]),
        room=source.context_len - len(prompt_ids) - params.max_new_tokens,
        budget=params.max_reasoning_tokens,
        is_counted=is_counted,
        is_constrained=params.grammar is not None,
    )


def fit_prompt(
    source: ModelSource, prompt: AbstractChatPrompt, params: SamplingParams, policy: ContextPolicy
) -> FittedPrompt:
    """Encode the prompt so that reasoning and answer have room after it.

    :raises PromptTooLong: it does not fit, and the policy does not allow to shorten it
    :raises BadRequest: the model has no embedding for one of its tokens
    """
    num_new, context_len = params.max_new_tokens, source.context_len
    reserved = source.reply_format.reserved_tokens(num_new, params.max_reasoning_tokens, context_len)
    try:
        return source.fit(prompt, context_len - num_new - reserved, policy)
    except PromptTooLong as error:
        kept = f"{num_new} tokens for the answer (max_new_tokens)"
        if reserved:
            kept += f" and {reserved} for the reasoning before it (max_reasoning_tokens)"
        room = f"of the context's {context_len} tokens the reply keeps {kept}"
        raise PromptTooLong(f"{error}; {room}", error.num_tokens) from error
