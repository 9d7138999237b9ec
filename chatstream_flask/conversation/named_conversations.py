"""Conversations of logged-in users, each with an owner and a title."""

from __future__ import annotations

import builtins
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from ..config import check_number
from .sql_database import SQLDatabase
from .sql_schema import conversations as c
from .sql_schema import now

is_kept = c.c.expires_at > now()
is_held = c.c.lease_until > now()


@dataclass(frozen=True)
class ConversationInfo:
    """Entry of a user's list of conversations."""

    id: str
    title: str
    created_at: datetime  # UTC
    updated_at: datetime  # UTC; time of the last turn


class NamedConversations:
    """Operations on the conversations of an owner, such as `str(user.id)`.

    No method checks who is calling: authenticate the user before passing an owner.
    """

    def __init__(self, database: SQLDatabase, ttl_sec: float) -> None:
        check_number("ttl_sec", ttl_sec, 0.001, 1e10)
        self._database = database
        self.ttl_sec = ttl_sec

    def create(self, owner: str, title: str = "") -> str:
        """Create an empty conversation; return its id, which cannot be guessed."""
        conversation_id = secrets.token_urlsafe(24)
        times = {"created_at": now(), "updated_at": now(), "expires_at": now() + self.ttl_sec}
        row = {"id": conversation_id, "owner": _checked(owner), "title": _storable(title)}
        self._database.change(insert(c).values(**row, **times))
        return conversation_id

    def list(self, owner: str, limit: int = 100, offset: int = 0) -> builtins.list[ConversationInfo]:
        """Return the owner's conversations, the most recently used first."""
        rows = self._database.read(
            select(c.c.id, c.c.title, c.c.created_at, c.c.updated_at)
            .where(c.c.owner == _checked(owner), is_kept)
            .order_by(c.c.updated_at.desc(), c.c.id)
            .limit(limit)
            .offset(offset)
        )
        return [
            ConversationInfo(row.id, row.title, _utc(row.created_at), _utc(row.updated_at)) for row in rows
        ]

    def rename(self, conversation_id: str, owner: str, title: str) -> bool:
        """Set the title; return False if the owner has no such conversation."""
        is_theirs = and_(c.c.id == conversation_id, c.c.owner == _checked(owner), or_(is_kept, is_held))
        return self._change(is_theirs, title=_storable(title))

    def owner_of(self, conversation_id: str) -> str | None:
        """Return the owner; None if the conversation is anonymous or does not exist."""
        found = select(c.c.owner).where(c.c.id == conversation_id, or_(is_kept, is_held))
        return next((row.owner for row in self._database.read(found)), None)

    def is_owner(self, conversation_id: str, owner: str) -> bool:
        return self.owner_of(conversation_id) == _checked(owner)

    def adopt(self, conversation_id: str, owner: str) -> bool:
        """Give an anonymous conversation an owner, even during a running reply.

        Return False if the conversation does not exist or already has an owner.
        """
        is_anonymous = and_(c.c.id == conversation_id, c.c.owner.is_(None), or_(is_kept, is_held))
        return self._change(is_anonymous, owner=_checked(owner), expires_at=now() + self.ttl_sec)

    def delete_owner(self, owner: str) -> int:
        """Delete all conversations of the owner; return how many. Their running replies are not stored."""
        return self._database.change(delete(c).where(c.c.owner == _checked(owner)))

    def _change(self, which: ColumnElement[bool], **values: Any) -> bool:
        return self._database.change(update(c).where(which).values(**values)) == 1


def _checked(owner: str) -> str:
    """Return the owner; raise ValueError for None or "", which must not select anonymous conversations."""
    if not isinstance(owner, str) or not owner:
        raise ValueError(f"an owner must be a non-empty string such as str(user.id), not {owner!r}")
    return owner


def _storable(title: str) -> str:
    """Return the title without NUL characters and lone surrogates, which databases refuse."""
    return title.replace("\0", "").encode("utf-8", "replace").decode()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
