"""How the reply to a prompt reasons: the format of the model within the limits of the request."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import SamplingParams
from ..engine.reasoning import Reasoning
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


def max_prompt_tokens(source: ModelSource, params: SamplingParams) -> int:
    """Return how many tokens a prompt may have, so that reasoning and answer have room after it."""
    reserved = source.reply_format.reserved_tokens(
        params.max_new_tokens, params.max_reasoning_tokens, source.context_len
    )
    return source.context_len - params.max_new_tokens - reserved
