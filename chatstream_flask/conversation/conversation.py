"""A conversation: its ChatPrompt and the generation parameters that the visitor has set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRecord, StoreUnavailable
from ..prompts import AbstractChatPrompt

FORMAT = 2  # version of the record; version 1 was the ChatPrompt's dict alone


@dataclass
class Conversation:
    """One conversation, which a store keeps as a record: a dict of JSON's types."""

    prompt: AbstractChatPrompt
    generation_params: dict[str, Any] = field(default_factory=dict)  # set by the visitor and validated

    @classmethod
    def begin(cls, chat_prompt_clazz: type[AbstractChatPrompt]) -> Conversation:
        """Return a new conversation with the initial contents that its prompt class sets up."""
        prompt = chat_prompt_clazz()
        prompt.build_initial_prompt(prompt)
        return cls(prompt)

    @classmethod
    def from_record(
        cls, record: dict[str, Any] | None, chat_prompt_clazz: type[AbstractChatPrompt]
    ) -> Conversation:
        """Return the conversation of a stored record, or a new one.

        :param record: as a store returned it; None begins a new conversation
        :raises StoreUnavailable: the record is damaged, or a newer version of this package wrote it
        """
        if record is None:
            return cls.begin(chat_prompt_clazz)
        if record.get("v") == 1:
            return cls(chat_prompt_clazz.from_dict(record))
        if record.get("v") != FORMAT:
            raise StoreUnavailable(
                f"a stored conversation has format {record.get('v')!r}, but this version of chatstream_flask "
                f"reads 1 to {FORMAT}: use the version that wrote it, or clear the conversation"
            )
        try:
            prompt, generation_params = record["prompt"], dict(record["generation_params"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRecord(f"a stored conversation is damaged: {error!r}") from error
        return cls(chat_prompt_clazz.from_dict(prompt), generation_params)

    def to_record(self) -> dict[str, Any]:
        """Return the record that `from_record` reads."""
        return {"v": FORMAT, "prompt": self.prompt.to_dict(), "generation_params": self.generation_params}
