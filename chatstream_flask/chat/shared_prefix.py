"""The tokens with which every conversation of an app begins: its system text, its examples."""

from __future__ import annotations

from ..config import ContextPolicy
from ..conversation import Conversation
from ..engine.prefix_cache import common_prefix_len
from ..errors import ChatStreamError
from ..model_source import ModelSource
from ..prompts import AbstractChatPrompt

FIRST_WORDS = "."  # of a conversation made up to see what comes before them


class SharedPrefix:
    """Read off once, from a conversation that has only begun: nothing in it is any visitor's."""

    def __init__(self, source: ModelSource, chat_prompt_clazz: type[AbstractChatPrompt]) -> None:
        self._source = source
        self._chat_prompt_clazz = chat_prompt_clazz
        self._token_ids: list[int] | None = None

    def length(self, token_ids: list[int]) -> int:
        """How many first tokens of a prompt are no visitor's own."""
        if self._token_ids is None:
            self._token_ids = self._first_tokens()
        return common_prefix_len(token_ids, self._token_ids, len(token_ids))

    def _first_tokens(self) -> list[int]:
        prompt = Conversation.begin(self._chat_prompt_clazz).prompt
        prompt.add_requester_msg(FIRST_WORDS)
        prompt.add_responder_msg(None)
        try:
            return self._source.fit(prompt, self._source.context_len, ContextPolicy.ERROR).token_ids
        except ChatStreamError:  # it does not fit: then no conversation does
            return []
