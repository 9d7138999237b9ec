"""Fitting of a conversation into the context by dropping its oldest turns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from ..config import ContextPolicy
from ..errors import PromptTooLong
from .abstract_chat_prompt import AbstractChatPrompt
from .chat_history import split_turns
from .prompt_settings import PromptTTL

MAX_BYTES = 12  # of a token on average; longer conversations are not rendered whole


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
    """Return at most `max_tokens` token ids.

    Whole turns are dropped, the oldest first, but never the system text or the newest turn. The policy says
    which turns may be dropped:

    - `error`: none.
    - `drop_oldest_turns`: the visitor's turns; the application's examples stay.
    - `keep_system_and_recent`: first the application's examples, then the visitor's turns.

    If some must be dropped, others go with them, at most half of what would fit: the next prompts then begin
    with the tokens of this one, which the KV cache holds, until the context is full again.

    The search renders the newest turns only, so its time does not depend on how many older ones there are.

    :raises PromptTooLong: the prompt does not fit even without the turns that may be dropped
    """
    contents = prompt.get_contents()
    examples, turns = split_turns(contents[: prompt.num_initial]), split_turns(contents[prompt.num_initial :])
    droppable = [] if policy is ContextPolicy.ERROR else turns[:-1]
    if policy is not ContextPolicy.KEEP_SYSTEM_AND_RECENT:
        examples = []
    example_ends = [0, *accumulate(map(len, examples))]
    turn_ends = list(accumulate(map(len, droppable), initial=prompt.num_initial))

    @cache
    def encode(num_dropped: int) -> list[int]:
        num_examples = min(num_dropped, len(examples))
        first = example_ends[num_examples]
        kept = contents[first : prompt.num_initial] + contents[turn_ends[num_dropped - num_examples] :]
        shorter = prompt.with_contents(kept, prompt.num_initial - first)
        return shorter.to_token_ids(tokenizer, add_special_tokens)

    def num_tokens(num_dropped: int) -> int:
        return len(encode(num_dropped))

    num_dropped = 0
    if prompt.chat_mode and prompt.prompt_ttl is PromptTTL.MULTI_TURN:  # else older turns are not rendered
        lengths = [
            sum(len((content.message or "").encode(errors="replace")) for content in turn)
            for turn in [*examples, *droppable]
        ]
        num_dropped = _num_to_drop([0, *accumulate(lengths)], max_tokens, num_tokens)
    if num_tokens(num_dropped) > max_tokens:
        num = num_tokens(num_dropped)
        raise PromptTooLong(_too_long(num, max_tokens, policy), num)
    return FittedPrompt(encode(num_dropped), max(0, num_dropped - len(examples)))


def _num_to_drop(num_bytes: list[int], max_tokens: int, num_tokens: Callable[[int], int]) -> int:
    """Return how many of the oldest turns to drop; all of them if even the rest does not fit.

    The result is the first turn that fits and begins at, or behind, a multiple of a number of bytes,
    counted from the first turn. The number is a power of two, at most a third of the bytes that fit. So the
    result stays the same while some turns are added, without being stored.

    :param num_bytes: bytes of the first n turns, for each n
    :param num_tokens: returns the number of tokens without the first n turns
    """

    def fits(num_dropped: int) -> bool:
        return num_tokens(num_dropped) <= max_tokens

    total, window = num_bytes[-1], MAX_BYTES * max_tokens
    fitting = len(num_bytes) - 1  # not tried yet, but the last choice
    tried = bisect_left(num_bytes, total - window)
    while fits(tried):
        fitting = tried
        if tried == 0:
            return 0
        window *= 2
        tried = min(bisect_left(num_bytes, total - window), tried - 1)
    fitting = bisect_left(range(fitting), True, min(tried + 1, fitting), key=fits)
    kept = total - num_bytes[fitting]
    # Few values, so that the step stays the same: about four bytes a token in all languages, or one.
    bytes_per_token = 4 if kept > 2 * num_tokens(fitting) else 1
    step = 1 << max(0, (bytes_per_token * max_tokens // 3).bit_length() - 1)
    multiple = -(-num_bytes[fitting] // step) * step
    rounded = min(bisect_left(num_bytes, multiple, fitting), len(num_bytes) - 1)
    return rounded if total - num_bytes[rounded] >= kept // 2 else fitting


def _too_long(num_tokens: int, max_tokens: int, policy: ContextPolicy) -> str:
    excess = f"{num_tokens} tokens, but {max_tokens} are allowed"
    if policy is ContextPolicy.ERROR:
        return (
            f"the prompt of this conversation has {excess}: clear the conversation, shorten the message or "
            "lower max_new_tokens; with another context_policy than 'error' old turns would be dropped"
        )
    return f"the prompt of the newest message has {excess}: shorten the message or lower max_new_tokens"
