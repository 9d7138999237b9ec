"""List of conversations in SQLite and PostgreSQL, beside the conversations themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, insert, or_, select, update

from ..prompts import AbstractChatPrompt
from .conversation_index import ConversationInfo, check_number_of, title_of, turn_texts
from .search_terms import search_terms
from .sql_database import SQLDatabase
from .sql_schema import conversations as c
from .sql_schema import now
from .sql_search import SQLSearch

is_kept = c.c.expires_at > now()
is_held = c.c.lease_until > now()

INFO = (c.c.id, c.c.title, c.c.created_at, c.c.updated_at, c.c.is_pinned)


class SQLIndex:
    """ConversationIndex on the columns `owner`, `title` and `is_pinned`, and on full-text search.

    The entry of a conversation is its row, so it is deleted and expires with it.
    """

    def __init__(self, database: SQLDatabase, ttl_sec: float) -> None:
        self._database = database
        self._ttl_sec = ttl_sec
        self._search = SQLSearch(database.dialect)

    def entries(self, owner: str, limit: int = 100, offset: int = 0) -> list[ConversationInfo]:
        newest_first = (c.c.is_pinned.desc(), c.c.updated_at.desc(), c.c.id.desc())
        found = select(*INFO).where(c.c.owner == owner, is_kept).order_by(*newest_first)
        return [_info(row) for row in self._database.read(found.limit(limit).offset(offset))]

    def search(self, owner: str, words: str, limit: int = 100) -> list[ConversationInfo]:
        wanted = search_terms(words)
        found: list[ConversationInfo] = []
        if not wanted:
            return found
        with self._database.connection() as connection:
            ids = self._search.find(connection, owner, wanted)
            while len(found) < limit and (batch := list(islice(ids, limit - len(found)))):
                # Without the owner in the condition: SQLite would look through all rows of the owner.
                theirs: Select[Any] = select(*INFO, c.c.owner).where(c.c.id.in_(batch), or_(is_kept, is_held))
                rows: Sequence[Row[Any]] = connection.execute(theirs).all()
                infos = {row.id: _info(row) for row in rows if row.owner == owner}
                found += [infos[each] for each in batch if each in infos]
        return found

    def get(self, owner: str, conversation_id: str) -> ConversationInfo | None:
        rows = self._database.read(_theirs(owner, conversation_id))
        return _info(rows[0]) if rows else None

    def add(self, owner: str, conversation_id: str, title: str, max_conversations: int | None) -> None:
        title = storable(title)
        times = {"created_at": now(), "updated_at": now(), "expires_at": now() + self._ttl_sec}
        with self._database.transaction() as connection:
            if max_conversations is not None:
                counted = select(func.count()).select_from(c).where(c.c.owner == owner, is_kept)
                check_number_of(connection.execute(counted).scalar_one(), max_conversations)
            row = {"id": conversation_id, "owner": owner, "title": title}
            connection.execute(insert(c).values(**row, **times))
            self._search.set_title(connection, owner, conversation_id, title)

    def change(
        self, owner: str, conversation_id: str, *, title: str | None = None, is_pinned: bool | None = None
    ) -> ConversationInfo | None:
        given = {"title": title if title is None else storable(title), "is_pinned": is_pinned}
        changed = {name: value for name, value in given.items() if value is not None}
        with self._database.transaction() as connection:
            theirs = _theirs(owner, conversation_id)
            if changed and _entry(connection, theirs):
                connection.execute(update(c).where(c.c.id == conversation_id).values(**changed))
            if title is not None and _entry(connection, theirs):
                self._search.set_title(connection, owner, conversation_id, title)
            return _entry(connection, theirs)

    def remove(self, owner: str, conversation_id: str) -> None:
        """Do nothing: the entry goes with the conversation."""

    def keep_turn(
        self, owner: str, conversation_id: str, prompt: AbstractChatPrompt, *, is_appended: bool
    ) -> None:
        with self._database.transaction() as connection:
            found = select(c.c.owner, c.c.title).where(c.c.id == conversation_id, or_(is_kept, is_held))
            row = connection.execute(found).first()
            if row is None or row.owner not in (None, owner):
                return
            if row.owner is None or not row.title:
                title = row.title or storable(title_of(prompt))
                given = update(c).where(c.c.id == conversation_id).values(owner=owner, title=title)
                connection.execute(given)
                self._search.set_title(connection, owner, conversation_id, title)
            self._index_turns(connection, owner, conversation_id, prompt, is_appended)

    def adopt(self, conversation_id: str, owner: str, is_anonymous: Any) -> bool:
        """Give a conversation for which the condition holds to an owner; return whether it does."""
        with self._database.transaction() as connection:
            found = select(c.c.owner).where(c.c.id == conversation_id, is_anonymous)
            row = connection.execute(found).first()
            if row is None:
                return False
            given = {"owner": owner, "expires_at": now() + self._ttl_sec}
            connection.execute(update(c).where(c.c.id == conversation_id).values(**given))
            if row.owner is not None:
                self._search.give(connection, conversation_id, owner, row.owner)
            return True

    def _index_turns(
        self,
        connection: Connection,
        owner: str,
        conversation_id: str,
        prompt: AbstractChatPrompt,
        is_appended: bool,
    ) -> None:
        """Add the newest turn; if others changed, or were never added, add all anew."""
        num_known = self._search.num_turns(connection, conversation_id)
        num_earlier = prompt.num_droppable_turns
        is_complete = is_appended and num_known >= num_earlier
        num_gone = num_known - num_earlier if is_complete else None
        if num_gone != 0:
            self._search.delete_oldest_turns(connection, conversation_id, num_gone)
        texts = turn_texts(prompt, 1 if is_complete else None)
        self._search.add_turns(connection, owner, conversation_id, texts)


def storable(title: str) -> str:
    """Return the title without NUL characters and lone surrogates, which databases refuse."""
    return title.replace("\0", "").encode("utf-8", "replace").decode()


def _theirs(owner: str, conversation_id: str) -> Select[Any]:
    return select(*INFO).where(and_(c.c.id == conversation_id, c.c.owner == owner, or_(is_kept, is_held)))


def _entry(connection: Connection, found: Select[Any]) -> ConversationInfo | None:
    row = connection.execute(found).first()
    return None if row is None else _info(row)


def _info(row: Row[Any]) -> ConversationInfo:
    created_at = datetime.fromtimestamp(row.created_at, timezone.utc)
    updated_at = datetime.fromtimestamp(row.updated_at, timezone.utc)
    return ConversationInfo(row.id, row.title, created_at, updated_at, bool(row.is_pinned))
