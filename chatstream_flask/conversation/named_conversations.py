"""Conversations of logged-in users, each with an owner and a title."""

from __future__ import annotations

import builtins
import secrets

from sqlalchemy import and_, delete, or_, select

from ..config import check_number
from .conversation_index import ANONYMOUS, ConversationInfo
from .sql_database import SQLDatabase
from .sql_index import SQLIndex, is_held, is_kept
from .sql_schema import conversations as c

is_anonymous = or_(c.c.owner.is_(None), c.c.owner.startswith(ANONYMOUS, autoescape=True))


class NamedConversations:
    """Operations on the conversations of an owner, such as `str(user.id)`.

    No method checks who is calling: authenticate the user before passing an owner.
    """

    def __init__(self, database: SQLDatabase, ttl_sec: float) -> None:
        check_number("ttl_sec", ttl_sec, 0.001, 1e10)
        self._database = database
        self.index = SQLIndex(database, ttl_sec)
        self.ttl_sec = ttl_sec

    def create(self, owner: str, title: str = "") -> str:
        """Create an empty conversation; return its id, which cannot be guessed."""
        conversation_id = secrets.token_urlsafe(24)
        self.index.add(_checked(owner), conversation_id, title, None)
        return conversation_id

    def list(self, owner: str, limit: int = 100, offset: int = 0) -> builtins.list[ConversationInfo]:
        """Return the owner's conversations: pinned ones first, then the most recently used."""
        return self.index.entries(_checked(owner), limit, offset)

    def rename(self, conversation_id: str, owner: str, title: str) -> bool:
        """Set the title; return False if the owner has no such conversation."""
        return self.index.change(_checked(owner), conversation_id, title=title) is not None

    def owner_of(self, conversation_id: str) -> str | None:
        """Return the owner; None if the conversation is anonymous or does not exist."""
        is_theirs = and_(c.c.id == conversation_id, or_(is_kept, is_held), ~is_anonymous)
        return next((row.owner for row in self._database.read(select(c.c.owner).where(is_theirs))), None)

    def is_owner(self, conversation_id: str, owner: str) -> bool:
        return self.owner_of(conversation_id) == _checked(owner)

    def adopt(self, conversation_id: str, owner: str) -> bool:
        """Give an anonymous conversation an owner, even during a running reply.

        Return False if the conversation does not exist or already has an owner.
        """
        may_go = and_(is_anonymous, or_(is_kept, is_held))
        return self.index.adopt(conversation_id, _checked(owner), may_go)

    def delete_owner(self, owner: str) -> int:
        """Delete all conversations of the owner; return how many. Their running replies are not stored."""
        return self._database.change(delete(c).where(c.c.owner == _checked(owner)))


def _checked(owner: str) -> str:
    """Return the owner; raise ValueError for one that would select anonymous conversations."""
    if not isinstance(owner, str) or not owner or owner.startswith(ANONYMOUS):
        raise ValueError(f"an owner must be a non-empty string such as str(user.id), not {owner!r}")
    return owner
