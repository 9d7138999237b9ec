"""The tokens that prompts begin with and that come from the app, not from a visitor."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from ..config import ContextPolicy
from ..conversation import Conversation
from ..engine.prefix_cache import common_prefix_len
from ..errors import ChatStreamError
from ..model_source import ModelSource
from ..prompts import AbstractChatPrompt

FIRST_WORDS = (".", "A")  # two first messages: what their prompts have in common comes from neither
MAX_AGE_SEC = 600.0  # a prompt may begin with the date


class SharedPrefix(ABC):
    """Length of the prefix that prompts share, taken from prompts that differ in their first message only.

    Nothing in it comes from a visitor, so the KV cache may reuse it for everybody.
    """

    def __init__(self) -> None:
        self._prefixes: list[list[int]] = []
        self._read_at = float("-inf")

    def length(self, token_ids: list[int]) -> int:
        """Return how many of a prompt's first tokens belong to a shared prefix."""
        now = time.monotonic()
        if now - self._read_at > MAX_AGE_SEC:
            self._prefixes, self._read_at = self._read_prefixes(), now
        return max(common_prefix_len(token_ids, prefix, len(prefix)) for prefix in self._prefixes)

    def _read_prefixes(self) -> list[list[int]]:
        one, other = map(self.prompts_with, FIRST_WORDS)
        return [a[: common_prefix_len(a, b, len(a))] for a, b in zip(one, other, strict=True)]

    @abstractmethod
    def prompts_with(self, first_words: str) -> list[list[int]]:
        """Return the token ids of prompts whose first message is `first_words`, one for each prefix.

        Those that cannot be rendered are empty.
        """


class ChatSharedPrefix(SharedPrefix):
    """What all conversations begin with: the system text and the examples of the prompt class."""

    def __init__(self, source: ModelSource, chat_prompt_clazz: type[AbstractChatPrompt]) -> None:
        super().__init__()
        self._source = source
        self.chat_prompt_clazz = chat_prompt_clazz

    def prompts_with(self, first_words: str) -> list[list[int]]:
        prompt = Conversation.begin(self.chat_prompt_clazz).prompt
        prompt.add_requester_msg(first_words)
        prompt.add_responder_msg(None)
        try:
            return [self._source.fit(prompt, self._source.context_len, ContextPolicy.ERROR).token_ids]
        except ChatStreamError:  # if this does not fit, no conversation does
            return [[]]
