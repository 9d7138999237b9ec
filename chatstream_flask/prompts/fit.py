"""Makes a conversation fit into the context by leaving out its oldest turns."""

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
    token_ids: list[int]
    num_dropped_turns: int  # of the visitor
    num_dropped_examples: int = 0  # turns that the application set up


def fit_to_context(
    prompt: AbstractChatPrompt,
    tokenizer: Any,
    max_tokens: int,
    add_special_tokens: bool | None = None,
    policy: ContextPolicy = ContextPolicy.DROP_OLDEST_TURNS,
) -> FittedPrompt:
    """At most `max_tokens` ids, with as few turns left out as possible; each try is a rendering.

    Whole turns are left out, oldest first, and never the system text or the newest turn:

    - `error`: none; a conversation that does not fit is refused.
    - `drop_oldest_turns`: the visitor's; the application's examples stay.
    - `keep_system_and_recent`: first the application's examples, then the visitor's.

    :raises PromptTooLong: what must stay does not fit
    """
    num_examples, most = 0, 0
    if policy is ContextPolicy.KEEP_SYSTEM_AND_RECENT:
        num_examples = len(split_turns(prompt.get_contents()[: prompt.num_initial]))
    if policy is not ContextPolicy.ERROR:
        most = num_examples + prompt.num_droppable_turns

    @cache
    def render(num_dropped: int) -> list[int]:
        shorter = prompt.without_oldest_turns(max(0, num_dropped - num_examples))
        shorter = _without_examples(shorter, min(num_dropped, num_examples))
        return shorter.to_token_ids(tokenizer, add_special_tokens)

    def is_fitting(num_dropped: int) -> bool:
        return len(render(num_dropped)) <= max_tokens

    if not is_fitting(0) and not is_fitting(most):
        raise PromptTooLong(_too_long(len(render(most)), max_tokens, policy))
    num_dropped = 0 if is_fitting(0) else bisect_left(range(most), True, key=is_fitting)
    return FittedPrompt(
        render(num_dropped), max(0, num_dropped - num_examples), min(num_dropped, num_examples)
    )


def _without_examples(prompt: AbstractChatPrompt, num_turns: int) -> AbstractChatPrompt:
    contents = prompt.get_contents()
    dropped = sum(map(len, split_turns(contents[: prompt.num_initial])[:num_turns]))
    return prompt.with_contents(contents[dropped:], prompt.num_initial - dropped)


def _too_long(num_tokens: int, max_tokens: int, policy: ContextPolicy) -> str:
    allowed = f"{num_tokens} tokens, {max_tokens} are allowed (context_len less max_new_tokens)"
    if policy is ContextPolicy.ERROR:
        return (
            f"the conversation makes a prompt of {allowed}: clear it, shorten the message, or ask for fewer "
            "new tokens; with another context_policy than 'error' its oldest turns would be left out"
        )
    return f"the newest message makes a prompt of {allowed}: shorten the message, or ask for fewer new tokens"
