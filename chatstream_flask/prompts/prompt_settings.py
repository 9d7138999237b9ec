"""Settings of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class PromptTTL(Enum):
    """Turns that the model is shown: all of them, or the newest one after the initial contents."""

    MULTI_TURN = "multi_turn"
    SINGLE_TURN = "single_turn"


class PromptSettings:
    """Settings that are stored with the conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.system = ""
        self.requester = ""
        self.responder = ""
        self.chat_mode = True
        self.prompt_ttl = PromptTTL.MULTI_TURN
        self.prefix_as_stop_str = False
        self.template_kwargs: Mapping[str, Any] = {}  # for this reply; not stored
        self.tokenizer: Any = None  # for `create_prompt` without one; not stored

    def set_system(self, system: str) -> None:
        """Set the system text."""
        self.system = system

    def set_requester(self, requester: str) -> None:
        """Set the name of the requester in the prompt."""
        self.requester = requester

    def set_responder(self, responder: str) -> None:
        """Set the name of the responder in the prompt."""
        self.responder = responder

    def set_chat_mode_enabled(self, enabled: bool) -> None:
        """Enable or disable chat mode.

        Outside chat mode the prompt is the newest requester message alone, and there are no stop strings.
        """
        self.chat_mode = enabled

    def is_chat_mode_enabled(self) -> bool:
        """Return whether chat mode is enabled."""
        return self.chat_mode

    def set_prompt_ttl(self, prompt_ttl: PromptTTL) -> None:
        """Set which turns the model is shown."""
        self.prompt_ttl = prompt_ttl

    def set_prefix_as_stop_str_enabled(self, enabled: bool) -> None:
        """Set whether a reply ends where the model starts to write the requester's next message."""
        self.prefix_as_stop_str = enabled
