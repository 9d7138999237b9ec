"""List of the messages of a conversation."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config import check_names
from ..errors import BadRequest
from .chat_content import ChatContent, RoleType

if TYPE_CHECKING:
    from typing_extensions import Self

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # valid in JSON, but refused by tokenizers and stores


class ChatHistory:
    """Messages of a conversation, oldest first.

    The first `num_initial` contents are examples that the application set up. The visitor's turns follow:
    each is a requester message and its reply.
    """

    def __init__(self) -> None:
        self._contents: list[ChatContent] = []
        self.num_initial = 0

    # -- reading ------------------------------------------------------------------------------------

    def get_contents(self, opts: dict[str, Any] | None = None) -> list[ChatContent]:
        """Return the messages, oldest first.

        :param opts: {"omit_last_message": True} returns the newest one without its text;
            {"to_message_id": str} omits everything after that message
        :raises BadRequest: there is no message with that id
        """
        opts = opts or {}
        check_names("option", opts, {"omit_last_message", "to_message_id", "tokenizer"})
        contents = list(self._contents)
        if (message_id := opts.get("to_message_id")) is not None:
            content = self.find_chat_content_by_message_id(message_id)
            if content is None:
                raise BadRequest(f"this conversation has no message {message_id!r}")
            contents = contents[: self._contents.index(content) + 1]
        if opts.get("omit_last_message") and contents:
            contents[-1] = replace(contents[-1], message=None)
        return contents

    def get_turn(self) -> int:
        """Return the number of messages that the visitor has sent."""
        return sum(content.is_requester for content in self._contents[self.num_initial :])

    def is_empty(self) -> bool:
        return not self._contents

    def get_requester_last_msg(self) -> str | None:
        """Return the newest message of the requester; None if there is none."""
        return self._newest_message(RoleType.REQUESTER)

    def get_responder_last_msg(self) -> str | None:
        """Return the newest reply; None if there is none or it is still to come."""
        return self._newest_message(RoleType.RESPONDER)

    def find_chat_content_by_message_id(self, message_id: str) -> ChatContent | None:
        """Return the message with this id; None if there is none."""
        return next((content for content in self._contents if content.message_id == message_id), None)

    @property
    def has_turn_to_regenerate(self) -> bool:
        """Return whether the newest message is a reply to the visitor, not an example of the application."""
        return len(self._contents) > self.num_initial and not self._contents[-1].is_requester

    # -- changing -----------------------------------------------------------------------------------

    def add_requester_msg(self, message: str) -> None:
        """Append a message of the requester."""
        self._add(RoleType.REQUESTER, message)

    def add_responder_msg(self, message: str | None) -> None:
        """Append a reply; None if it is still to come."""
        self._add(RoleType.RESPONDER, message)

    def set_responder_last_msg(
        self,
        message: str | None,
        *,
        is_interrupted: bool = False,
        reasoning: str | None = None,
        reasoning_sec: float | None = None,
        sources: list[dict[str, str]] | None = None,
        steps: list[dict[str, Any]] | None = None,
    ) -> None:
        """Set what the newest message has, which must be a reply (else ValueError)."""
        content = self._last(RoleType.RESPONDER)
        content.message, content.is_interrupted = message, is_interrupted
        content.reasoning, content.reasoning_sec = reasoning, reasoning_sec
        content.sources, content.steps = sources or None, steps or None

    def set_responder_last_msg_id(self, message_id: str | None) -> None:
        """Set the id of the newest message, which must be a reply (else ValueError)."""
        self._last(RoleType.RESPONDER).message_id = message_id

    def clear_last_responder_message(self) -> None:
        """Discard the text of the newest reply, so that it can be generated again; do nothing without one."""
        if self.has_turn_to_regenerate:
            self._contents[-1] = ChatContent(RoleType.RESPONDER)

    def remove_last_requester_msg(self) -> None:
        """Remove the newest message, which must be the requester's (else ValueError)."""
        self._last(RoleType.REQUESTER)
        self._contents.pop()

    def remove_last_responder_msg(self) -> None:
        """Remove the newest message, which must be a reply (else ValueError)."""
        self._last(RoleType.RESPONDER)
        self._contents.pop()

    def cut_before_turn_of(self, message_id: str) -> None:
        """Remove the visitor's turn that has this message, and all later turns.

        :raises BadRequest: there is no message with that id
        """
        for i in range(len(self._contents) - 1, self.num_initial - 1, -1):
            if self._contents[i].message_id == message_id:
                is_requester = [content.is_requester for content in self._contents[: i + 1]]
                del self._contents[i - is_requester[::-1].index(True) :]
                return
        raise BadRequest(f"this conversation has no message {message_id!r}")

    def clear_history(self) -> None:
        """Remove the visitor's turns; the initial contents stay."""
        del self._contents[self.num_initial :]

    # -- turns --------------------------------------------------------------------------------------

    @property
    def num_droppable_turns(self) -> int:
        """Return the number of the visitor's turns without the newest one, which is never dropped."""
        return max(0, len(split_turns(self._contents[self.num_initial :])) - 1)

    def without_oldest_turns(self, num_turns: int) -> Self:
        """Return a copy without the visitor's oldest turns.

        :raises ValueError: `num_turns` is not between 0 and `num_droppable_turns`
        """
        if not 0 <= num_turns <= self.num_droppable_turns:
            raise ValueError(f"{num_turns} turns cannot be dropped, only 0 to {self.num_droppable_turns}")
        turns = split_turns(self._contents[self.num_initial :])[num_turns:]
        kept = self._contents[: self.num_initial] + [content for turn in turns for content in turn]
        clone = copy.copy(self)
        clone._contents = [replace(content) for content in kept]
        return clone

    # -- helpers ------------------------------------------------------------------------------------

    def _add(self, role: RoleType, message: str | None) -> None:
        if message is not None:
            message = LONE_SURROGATE.sub("\ufffd", message)
        self._contents.append(ChatContent(role, message))

    def _newest_message(self, role: RoleType) -> str | None:
        return next((content.message for content in reversed(self._contents) if content.role is role), None)

    def _last(self, role: RoleType) -> ChatContent:
        if len(self._contents) <= self.num_initial or self._contents[-1].role is not role:
            raise ValueError(f"the newest message of {self!r} is not from the {role.value}")
        return self._contents[-1]


def split_turns(contents: Sequence[ChatContent]) -> list[list[ChatContent]]:
    """Return the turns; each starts with a requester message, except perhaps the first."""
    turns: list[list[ChatContent]] = []
    for content in contents:
        if content.is_requester or not turns:
            turns.append([])
        turns[-1].append(content)
    return turns
