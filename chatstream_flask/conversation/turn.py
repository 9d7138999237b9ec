"""One turn: the visitor's words and the reply, kept together or not at all."""

from __future__ import annotations

import uuid
from dataclasses import replace

from ..errors import BadRequest
from .conversation import Conversation
from .retention import trim_to_limits
from .store import Lease


class Turn:
    """Nothing is written before `save`, so a refused or failed turn leaves the conversation as it was."""

    def __init__(
        self,
        conversation: Conversation,
        lease: Lease,
        max_turns: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._lease = lease
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self.conversation = conversation
        self.prompt = conversation.prompt
        self.message_id = uuid.uuid4().hex

    @property
    def num_kept(self) -> int:
        """Messages before the reply and what it answers; the application's own examples do not count."""
        return len(self.prompt.get_contents()) - self.prompt.num_initial - 2

    def ask(self, user_input: str) -> None:
        self.prompt.add_requester_msg(user_input)
        self.prompt.add_responder_msg(None)

    def edit(self, message_id: str, user_input: str) -> None:
        """In place of the turn with this message, and of all after it."""
        self.prompt.cut_before_turn_of(message_id)
        self.ask(user_input)

    def regenerate(self) -> None:
        if not self.prompt.has_turn_to_regenerate:
            raise BadRequest("there is no reply to regenerate in this conversation yet")
        self.prompt.clear_last_responder_message()

    def save(self, reply: str, *, is_interrupted: bool) -> bool:
        """False if the conversation was deleted, or taken over by another process, since the turn began."""
        self.prompt.set_responder_last_msg(reply, is_interrupted=is_interrupted)
        self.prompt.set_responder_last_msg_id(self.message_id)
        kept = replace(
            self.conversation, prompt=trim_to_limits(self.prompt, self._max_turns, self._max_bytes)
        )
        return self._lease.save(kept.to_record())

    def close(self) -> None:
        """The next turn of this conversation may begin."""
        self._lease.close()
