"""What prompts of the API begin with and what comes from the app, not from a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..chat.shared_prefix import SharedPrefix
from ..errors import ChatStreamError
from ..model_source import ModelSource


class ApiSharedPrefix(SharedPrefix):
    """The system text that the chat template writes by itself, and those that the app declares shared."""

    def __init__(
        self, source: ModelSource, template_kwargs: Mapping[str, Any], system_texts: Sequence[str]
    ) -> None:
        super().__init__()
        self._source = source
        self._template_kwargs = template_kwargs
        self._system_texts = system_texts

    def prompts_with(self, first_words: str) -> list[list[int]]:
        first = {"role": "user", "content": first_words}
        declared = [[{"role": "system", "content": text}, first] for text in self._system_texts]
        return [self._encoded(messages) for messages in [[first], *declared]]

    def _encoded(self, messages: list[dict[str, Any]]) -> list[int]:
        try:
            return self._source.encode_messages(messages, [], self._template_kwargs)
        except ChatStreamError:  # there is no chat template, or it takes no system text
            return []
