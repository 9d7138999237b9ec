"""One turn: a user message and its reply, stored together or not at all."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any, Protocol

from ..errors import BadRequest, ConversationBusy, StoreUnavailable
from ..prompts import AbstractChatPrompt
from .conversation import Conversation
from .retention import trim_to_limits
from .store import Lease

logger = logging.getLogger("chatstream_flask")


class KeepInList(Protocol):
    """Brings the list of the conversation's owner up to date; see `ConversationIndex.keep_turn`."""

    def __call__(self, prompt: AbstractChatPrompt, *, is_appended: bool) -> None: ...


class Turn:
    """Turn of a conversation whose lease is held.

    Nothing is written before `save`, so a refused or failed turn leaves the stored conversation unchanged.

    :param max_turns: turns stored of the conversation; None: no limit
    :param max_bytes: size of the stored conversation; None: no limit
    :param keep_in_list: called when the turn is stored; None: the conversation is in no list
    """

    def __init__(
        self,
        conversation: Conversation,
        lease: Lease,
        max_turns: int | None = None,
        max_bytes: int | None = None,
        keep_in_list: KeepInList | None = None,
    ) -> None:
        self._lease = lease
        self._max_turns = max_turns
        self._max_bytes = max_bytes
        self._keep_in_list = keep_in_list
        self._is_appended = True  # False: earlier turns change, too
        self.conversation = conversation
        self.prompt = conversation.prompt
        self.message_id = uuid.uuid4().hex

    @property
    def num_kept(self) -> int:
        """Return the number of messages before this turn, without the initial ones of the prompt class."""
        return len(self.prompt.get_contents()) - self.prompt.num_initial - 2

    def ask(self, user_input: str) -> None:
        """Append a user message, with its reply still to come."""
        self.prompt.add_requester_msg(user_input)
        self.prompt.add_responder_msg(None)

    def edit(self, message_id: str, user_input: str) -> None:
        """Replace the turn that has this message, and remove all later turns."""
        self._is_appended = False
        self.prompt.cut_before_turn_of(message_id)
        self.ask(user_input)

    def regenerate(self) -> None:
        """Discard the newest reply; raises BadRequest if there is none."""
        if not self.prompt.has_turn_to_regenerate:
            raise BadRequest("there is no reply to regenerate in this conversation yet")
        self._is_appended = False
        self.prompt.clear_last_responder_message()

    def save(
        self,
        reply: str,
        *,
        is_interrupted: bool,
        reasoning: str | None = None,
        reasoning_sec: float | None = None,
        sources: list[dict[str, str]] | None = None,
        steps: list[dict[str, Any]] | None = None,
    ) -> bool:
        """Store the conversation with this reply, its reasoning, sources and calls of functions.

        Return False if it was deleted, or taken over by another process, since the turn began.
        """
        self.prompt.set_responder_last_msg(
            reply,
            is_interrupted=is_interrupted,
            reasoning=reasoning,
            reasoning_sec=reasoning_sec,
            sources=sources,
            steps=steps,
        )
        self.prompt.set_responder_last_msg_id(self.message_id)
        kept = replace(
            self.conversation, prompt=trim_to_limits(self.prompt, self._max_turns, self._max_bytes)
        )
        is_saved = self._lease.save(kept.to_record())
        if is_saved and self._keep_in_list is not None:
            try:
                self._keep_in_list(kept.prompt, is_appended=self._is_appended)
            except (ConversationBusy, StoreUnavailable) as error:  # the turn itself is stored
                logger.warning("a turn was stored, but not entered into its owner's list: %s", error)
        return is_saved

    def close(self) -> None:
        """Free the conversation for its next turn."""
        self._lease.close()
