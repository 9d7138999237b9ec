"""One turn: the visitor's words and the reply, kept together or not at all."""

from __future__ import annotations

import uuid
from typing import Any

from ..errors import BadRequest
from ..prompts import AbstractChatPrompt
from .lease import Lease
from .store import ConversationStore


class Turn:
    """Nothing is written before `keep`, so a refused or failed turn leaves the conversation as it was."""

    def __init__(self, store: ConversationStore, lease: Lease, prompt: AbstractChatPrompt) -> None:
        self._store = store
        self._lease = lease
        self.prompt = prompt
        self.message_id = uuid.uuid4().hex

    def ask(self, user_input: str) -> None:
        self.prompt.add_requester_msg(user_input)
        self.prompt.add_responder_msg(None)

    def ask_again(self) -> None:
        if not self.prompt.has_turn_to_regenerate:
            raise BadRequest("there is no reply to regenerate in this conversation yet")
        self.prompt.clear_last_responder_message()

    def keep(self, reply: str, *, is_interrupted: bool) -> None:
        self.prompt.set_responder_last_msg(reply, is_interrupted=is_interrupted)
        self.prompt.set_responder_last_msg_id(self.message_id)
        data = self.prompt.to_dict()
        self._lease.write(lambda: self._store.save(self._lease.conversation_id, data))

    def close(self) -> None:
        """The next turn of this conversation may begin."""
        self._lease.close()


def load_prompt(
    store: ConversationStore, conversation_id: str, chat_prompt_clazz: type[AbstractChatPrompt]
) -> AbstractChatPrompt:
    """The conversation so far; a new one if there is none."""
    data: dict[str, Any] | None = store.load(conversation_id)
    if data is not None:
        return chat_prompt_clazz.from_dict(data)
    prompt = chat_prompt_clazz()
    prompt.build_initial_prompt(prompt)
    return prompt
