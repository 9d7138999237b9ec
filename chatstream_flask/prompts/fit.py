"""Fitting of a conversation into the context by dropping its oldest turns."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..config import ContextPolicy
from ..errors import PromptTooLong
from .abstract_chat_prompt import AbstractChatPrompt
from .chat_history import split_turns


@dataclass(frozen=True)
class FittedPrompt:
    """Token ids of a prompt that fits into the context."""

    token_ids: list[int]
    num_dropped_turns: int  # turns of the visitor


def fit_to_context(
    prompt: AbstractChatPrompt,
    tokenizer: Any,
    max_tokens: int,
    add_special_tokens: bool | None = None,
    policy: ContextPolicy = ContextPolicy.DROP_OLDEST_TURNS,
) -> FittedPrompt:
    """Return at most `max_tokens` token ids, dropping as few turns as possible.

    Whole turns are dropped, the oldest first, but never the system text or the newest turn. The policy says
    which turns may be dropped:

    - `error`: none.
    - `drop_oldest_turns`: the visitor's turns; the application's examples stay.
    - `keep_system_and_recent`: first the application's examples, then the visitor's turns.

    The number of turns to drop is found by binary search; each step renders the prompt.

    :raises PromptTooLong: the prompt does not fit even without the turns that may be dropped
    """
    num_examples, num_droppable = 0, 0
    if policy is ContextPolicy.KEEP_SYSTEM_AND_RECENT:
        num_examples = len(split_turns(prompt.get_contents()[: prompt.num_initial]))
    if policy is not ContextPolicy.ERROR:
        num_droppable = num_examples + prompt.num_droppable_turns

    @cache
    def render(num_dropped: int) -> list[int]:
        shorter = prompt.without_oldest_turns(max(0, num_dropped - num_examples))
        shorter = _without_examples(shorter, min(num_dropped, num_examples))
        return shorter.to_token_ids(tokenizer, add_special_tokens)

    def fits(num_dropped: int) -> bool:
        return len(render(num_dropped)) <= max_tokens

    if not fits(0) and not fits(num_droppable):
        num_tokens = len(render(num_droppable))
        raise PromptTooLong(_too_long(num_tokens, max_tokens, policy), num_tokens)
    num_dropped = 0 if fits(0) else bisect_left(range(num_droppable), True, key=fits)
    return FittedPrompt(render(num_dropped), max(0, num_dropped - num_examples))


def _without_examples(prompt: AbstractChatPrompt, num_turns: int) -> AbstractChatPrompt:
    contents = prompt.get_contents()
    dropped = sum(map(len, split_turns(contents[: prompt.num_initial])[:num_turns]))
    return prompt.with_contents(contents[dropped:], prompt.num_initial - dropped)


def _too_long(num_tokens: int, max_tokens: int, policy: ContextPolicy) -> str:
    excess = f"{num_tokens} tokens, but {max_tokens} are allowed (context_len - max_new_tokens)"
    if policy is ContextPolicy.ERROR:
        return (
            f"the prompt of this conversation has {excess}: clear the conversation, shorten the message or "
            "lower max_new_tokens; with another context_policy than 'error' old turns would be dropped"
        )
    return f"the prompt of the newest message has {excess}: shorten the message or lower max_new_tokens"
