"""Makes a conversation fit into the context by leaving out its oldest turns."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import PromptTooLong
from .abstract_chat_prompt import AbstractChatPrompt


@dataclass(frozen=True)
class FittedPrompt:
    token_ids: list[int]
    num_dropped_turns: int


def fit_to_context(
    prompt: AbstractChatPrompt, tokenizer: Any, max_tokens: int, add_special_tokens: bool | None = None
) -> FittedPrompt:
    """At most `max_tokens` ids, with as few turns dropped as possible; each try is a rendering."""

    @cache
    def render(num_dropped: int) -> list[int]:
        return prompt.without_oldest_turns(num_dropped).to_token_ids(tokenizer, add_special_tokens)

    def is_fitting(num_dropped: int) -> bool:
        return len(render(num_dropped)) <= max_tokens

    most = prompt.num_droppable_turns
    if not is_fitting(0) and not is_fitting(most):
        raise PromptTooLong(
            f"the newest message makes a prompt of {len(render(most))} tokens, {max_tokens} are allowed "
            "(context_len less max_new_tokens): shorten the message, or ask for fewer new tokens"
        )
    num_dropped = 0 if is_fitting(0) else bisect_left(range(most), True, key=is_fitting)
    return FittedPrompt(render(num_dropped), num_dropped)
