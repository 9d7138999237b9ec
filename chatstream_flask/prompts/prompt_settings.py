"""What can be set about a prompt, apart from what was said."""

from __future__ import annotations

from enum import Enum


class PromptTTL(Enum):
    MULTI_TURN = "multi_turn"
    SINGLE_TURN = "single_turn"  # the model is shown the initial contents and the newest turn only


class PromptSettings:
    """Kept with the conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.system = ""
        self.requester = ""
        self.responder = ""
        self.chat_mode = True
        self.prompt_ttl = PromptTTL.MULTI_TURN
        self.prefix_as_stop_str = False

    def set_system(self, system: str) -> None:
        self.system = system

    def set_requester(self, requester: str) -> None:
        self.requester = requester

    def set_responder(self, responder: str) -> None:
        self.responder = responder

    def set_chat_mode_enabled(self, enabled: bool) -> None:
        """Off: the prompt is the newest requester message alone, and nothing stops the reply early."""
        self.chat_mode = enabled

    def is_chat_mode_enabled(self) -> bool:
        return self.chat_mode

    def set_prompt_ttl(self, prompt_ttl: PromptTTL) -> None:
        self.prompt_ttl = prompt_ttl

    def set_prefix_as_stop_str_enabled(self, enabled: bool) -> None:
        """On: a model that begins to write the requester's part is stopped there."""
        self.prefix_as_stop_str = enabled
