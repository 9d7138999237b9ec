"""Messages of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class RoleType(Enum):
    """Role of a message; the name that a prompt shows for it is a setting of the prompt."""

    REQUESTER = "requester"
    RESPONDER = "responder"


@dataclass
class ChatContent:
    """One message of a conversation, or a reply that is still to come."""

    role: RoleType
    message: str | None = None  # None: a reply that is still to come
    message_id: str | None = None
    is_interrupted: bool = False  # whether the reply ended early
    reasoning: str | None = None  # what the model wrote before its answer
    reasoning_sec: float | None = None  # how long it did
    steps: list[dict[str, Any]] | None = None  # calls of the app's functions, as its clients got them
    sources: list[dict[str, str]] | None = None  # shown with the reply: `title` and perhaps `url`

    @property
    def is_requester(self) -> bool:
        return self.role is RoleType.REQUESTER

    def get_role(self) -> RoleType:
        return self.role

    def get_message(self) -> str | None:
        return self.message

    def set_message(self, message: str | None) -> None:
        self.message = message

    def get_message_id(self) -> str | None:
        return self.message_id

    def set_message_id(self, message_id: str | None) -> None:
        self.message_id = message_id

    def to_dict(self) -> dict[str, Any]:
        """Return the message as a dict of JSON's types; reasoning, sources and steps if it has them."""
        data: dict[str, Any] = {
            "role": self.role.value,
            "message": self.message,
            "message_id": self.message_id,
            "is_interrupted": self.is_interrupted,
        }
        if self.reasoning is not None:
            data |= {"reasoning": self.reasoning, "reasoning_sec": self.reasoning_sec}
        if self.sources:
            data["sources"] = self.sources
        if self.steps:
            data["steps"] = self.steps
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ChatContent:
        """Return the message of a dict that `to_dict` returned."""
        return cls(
            RoleType(data["role"]),
            data["message"],
            data["message_id"],
            data["is_interrupted"],
            data.get("reasoning"),
            data.get("reasoning_sec"),
            data.get("steps"),
            data.get("sources"),
        )
