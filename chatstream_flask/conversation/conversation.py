"""A conversation as it is kept: the ChatPrompt, and the visitor's own generation settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import StoreUnavailable
from ..prompts import AbstractChatPrompt

FORMAT = 2  # 1 was the ChatPrompt's dict alone


@dataclass
class Conversation:
    prompt: AbstractChatPrompt
    generation_params: dict[str, Any] = field(default_factory=dict)  # what the visitor set, checked

    @classmethod
    def begin(cls, chat_prompt_clazz: type[AbstractChatPrompt]) -> Conversation:
        prompt = chat_prompt_clazz()
        prompt.build_initial_prompt(prompt)
        return cls(prompt)

    @classmethod
    def from_record(
        cls, record: dict[str, Any] | None, chat_prompt_clazz: type[AbstractChatPrompt]
    ) -> Conversation:
        """:param record: as a store gave it; None begins a conversation"""
        if record is None:
            return cls.begin(chat_prompt_clazz)
        if record.get("v") == 1:
            return cls(chat_prompt_clazz.from_dict(record))
        if record.get("v") != FORMAT:
            raise StoreUnavailable(
                f"a stored conversation has format {record.get('v')!r}, this version reads 1 to {FORMAT}: "
                "read it with the version that wrote it, or clear it"
            )
        return cls(chat_prompt_clazz.from_dict(record["prompt"]), record["generation_params"])

    def to_record(self) -> dict[str, Any]:
        return {"v": FORMAT, "prompt": self.prompt.to_dict(), "generation_params": self.generation_params}
