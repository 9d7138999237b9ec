"""Fitting of a conversation into the context by dropping its oldest turns."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from ..config import ContextPolicy
from ..errors import PromptTooLong
from .abstract_chat_prompt import AbstractChatPrompt
from .chat_content import ChatContent
from .chat_history import split_turns
from .prompt_settings import PromptTTL

MAX_BYTES = 12  # of a token on average; longer conversations are not rendered whole
MAX_STARTS = 10_000  # conversations whose start is remembered


@dataclass(frozen=True)
class FittedPrompt:
    """Token ids of a prompt that fits into the context."""

    token_ids: list[int]
    num_dropped_turns: int  # turns of the visitor


class KeptStarts:
    """The turns with which the prompts of full conversations began; safe from many threads.

    The next prompt begins with the same turn as long as it fits, so that the KV cache holds all but its end.
    Both are of this process, and lost with it.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, key: Hashable) -> None:
        with self._lock:
            self._keys[key] = None
            self._keys.move_to_end(key)
            if len(self._keys) > MAX_STARTS:
                self._keys.popitem(last=False)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys


def fit_to_context(
    prompt: AbstractChatPrompt,
    tokenizer: Any,
    max_tokens: int,
    add_special_tokens: bool | None = None,
    policy: ContextPolicy = ContextPolicy.DROP_OLDEST_TURNS,
    starts: KeptStarts | None = None,
) -> FittedPrompt:
    """Return at most `max_tokens` token ids.

    Whole turns are dropped, the oldest first, but never the system text or the newest turn. The policy says
    which turns may be dropped:

    - `error`: none.
    - `drop_oldest_turns`: the visitor's turns; the application's examples stay.
    - `keep_system_and_recent`: first the application's examples, then the visitor's turns.

    If some must be dropped, others go with them, until two thirds of `max_tokens` are left, or half of what
    the system text and the newest turn leave, if that is more. The next prompts then begin with the tokens of
    this one, which the KV cache holds, until the context is full again.

    The search renders the newest turns only, so its time does not depend on how many older ones there are.

    :param starts: where the prompts of these conversations began before; None: each begins anew
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

    def key(num_dropped: int) -> Hashable:
        """Return what names the first turn that is kept; None if it has no message with an id."""
        num_examples = min(num_dropped, len(examples))
        message_id = _message_id(turns[num_dropped - num_examples]) if turns else None
        return message_id and (num_examples, message_id)

    num_dropped = 0
    if prompt.chat_mode and prompt.prompt_ttl is PromptTTL.MULTI_TURN:  # else older turns are not rendered
        lengths = [
            sum(len((content.message or "").encode(errors="replace")) for content in turn)
            for turn in [*examples, *droppable]
        ]
        num_dropped = _num_to_drop(
            [0, *accumulate(lengths)], max_tokens, num_tokens, key, KeptStarts() if starts is None else starts
        )
    if num_tokens(num_dropped) > max_tokens:
        num = num_tokens(num_dropped)
        raise PromptTooLong(_too_long(num, max_tokens, policy), num)
    return FittedPrompt(encode(num_dropped), max(0, num_dropped - len(examples)))


def _num_to_drop(
    num_bytes: list[int],
    max_tokens: int,
    num_tokens: Callable[[int], int],
    key: Callable[[int], Hashable],
    starts: KeptStarts,
) -> int:
    """Return how many of the oldest turns to drop; all of them if even the rest does not fit.

    :param num_bytes: bytes of the first n turns, for each n
    :param num_tokens: returns the number of tokens without the first n turns
    :param key: returns the name of the first turn that is then kept
    """

    def fits(num_dropped: int) -> bool:
        return num_tokens(num_dropped) <= max_tokens

    total, window = num_bytes[-1], MAX_BYTES * max_tokens
    most = len(num_bytes) - 1
    tried = bisect_left(num_bytes, total - window)
    while fits(tried):
        if tried == 0:
            return 0
        window *= 2
        tried = min(bisect_left(num_bytes, total - window), tried - 1)
    fewest = min(tried + 1, most)  # that may fit
    for known in range(fewest, most + 1):
        if key(known) in starts and fits(known):
            return known
    limit = min(max_tokens, max(2 * max_tokens // 3, (num_tokens(most) + max_tokens) // 2))
    chosen = bisect_left(range(most), True, fewest, key=lambda n: num_tokens(n) <= limit)
    if (name := key(chosen)) is not None:
        starts.add(name)
    return chosen


def _message_id(turn: list[ChatContent]) -> str | None:
    return next((content.message_id for content in turn if content.message_id is not None), None)


def _too_long(num_tokens: int, max_tokens: int, policy: ContextPolicy) -> str:
    excess = f"{num_tokens} tokens, but {max_tokens} are allowed"
    if policy is ContextPolicy.ERROR:
        return (
            f"the prompt of this conversation has {excess}: clear the conversation, shorten the message or "
            "lower max_new_tokens; with another context_policy than 'error' old turns would be dropped"
        )
    return f"the prompt of the newest message has {excess}: shorten the message or lower max_new_tokens"
