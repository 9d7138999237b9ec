"""The tokens that all conversations of an app begin with: the system text and the examples."""

from __future__ import annotations

from ..config import ContextPolicy
from ..conversation import Conversation
from ..engine.prefix_cache import common_prefix_len
from ..errors import ChatStreamError
from ..model_source import ModelSource
from ..prompts import AbstractChatPrompt

FIRST_WORDS = (".", "A")  # two first messages: what their prompts have in common comes from neither


class SharedPrefix:
    """Length of the prefix that prompts share; it is taken once from conversations of one message.

    Nothing in it comes from a visitor, so the KV cache may reuse it for everybody.
    """

    def __init__(self, source: ModelSource, chat_prompt_clazz: type[AbstractChatPrompt]) -> None:
        self._source = source
        self._chat_prompt_clazz = chat_prompt_clazz
        self._token_ids: list[int] | None = None

    def length(self, token_ids: list[int]) -> int:
        """Return how many of a prompt's first tokens belong to the shared prefix."""
        if self._token_ids is None:
            self._token_ids = self._first_tokens()
        return common_prefix_len(token_ids, self._token_ids, len(token_ids))

    def _first_tokens(self) -> list[int]:
        one, other = map(self._tokens_with, FIRST_WORDS)
        return one[: common_prefix_len(one, other, len(one))]

    def _tokens_with(self, first_words: str) -> list[int]:
        prompt = Conversation.begin(self._chat_prompt_clazz).prompt
        prompt.add_requester_msg(first_words)
        prompt.add_responder_msg(None)
        try:
            return self._source.fit(prompt, self._source.context_len, ContextPolicy.ERROR).token_ids
        except ChatStreamError:  # if this does not fit, no conversation does
            return []
