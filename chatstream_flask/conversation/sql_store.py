"""Conversations in SQLite or PostgreSQL: anonymous ones, and named ones of logged-in users."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, and_, delete, not_, select
from sqlalchemy.dialects import postgresql, sqlite

from ..config import check_number
from ..errors import ConversationBusy
from .lease_keeper import LeaseKeeper
from .local_leases import BUSY
from .named_conversations import NamedConversations, is_held, is_kept
from .record_json import from_json
from .sql_database import SQLDatabase
from .sql_schema import conversations as c
from .sql_schema import now
from .store import Lease


class SQLStore(NamedConversations):
    """Each call is one statement or two, and every time in it is by the database's clock.

    A row that holds only a lease is over from the start; the first save gives it its time.
    """

    def __init__(self, url_or_engine: str | URL | Engine, *, ttl_sec: float, lease_sec: float = 30.0) -> None:
        """:param url_or_engine: `db.engine` of Flask-SQLAlchemy will do; its session is not touched
        :param ttl_sec: so long after its last turn a conversation is forgotten
        :param lease_sec: so long after `kill -9` of a process its conversations stay busy
        """
        check_number("lease_sec", lease_sec, 0.1, 3600)
        super().__init__(SQLDatabase(url_or_engine), ttl_sec)
        self.lease_sec = lease_sec
        self._keeper = LeaseKeeper(self)

    def __repr__(self) -> str:
        return f"<SQLStore {self._database!r} {self._keeper!r}>"

    def check_schema(self) -> None:
        """Raises StoreUnavailable, with what to do, unless the tables are there and of this version."""
        self._database.check_schema()

    def create_or_migrate(self) -> None:
        """Makes the tables, or makes older ones today's; nothing if they are.

        :raises ConfigError: they are of a newer version
        """
        self._database.create_or_migrate()

    def close(self) -> None:
        """What this process holds runs out; an engine that was passed in stays open."""
        self._keeper.close()
        self._database.close()

    # -- as every store -----------------------------------------------------------------------------

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        found = select(c.c.record).where(c.c.id == conversation_id, is_kept)
        text = next((row.record for row in self._database.read(found)), None)
        return None if text is None else from_json(text)

    def hold(self, conversation_id: str) -> Lease:
        token = self._keeper.new_token()
        if not self._take(conversation_id, token) and not self._begin(conversation_id, token):
            raise ConversationBusy(BUSY)
        return self._keeper.add(conversation_id, token)

    def delete(self, conversation_id: str) -> None:
        self._database.change(delete(c).where(c.c.id == conversation_id))

    def purge(self) -> int:
        return self._database.change(delete(c).where(not_(is_kept), not_(is_held)))

    # -- for leases ---------------------------------------------------------------------------------

    def save_if_held(self, conversation_id: str, token: str, text: str) -> bool:
        times = {"updated_at": now(), "expires_at": now() + self.ttl_sec}
        return self._change(self._has(conversation_id, token), record=text, **times)

    def renew(self, conversation_id: str, token: str) -> bool:
        return self._change(self._has(conversation_id, token), lease_until=now() + self.lease_sec)

    def release(self, conversation_id: str, token: str) -> None:
        self._change(self._has(conversation_id, token), lease_token=None, lease_until=0.0)

    def _has(self, conversation_id: str, token: str) -> Any:
        return and_(c.c.id == conversation_id, c.c.lease_token == token)

    def _take(self, conversation_id: str, token: str) -> bool:
        """Of a conversation that is there."""
        is_free = and_(c.c.id == conversation_id, is_kept, not_(is_held))
        return self._change(is_free, lease_token=token, lease_until=now() + self.lease_sec)

    def _begin(self, conversation_id: str, token: str) -> bool:
        """Of one that is not, or whose time is over: nothing of it comes back."""
        row: dict[str, Any] = {
            "owner": None,
            "title": "",
            "record": None,
            "created_at": now(),
            "updated_at": now(),
            "expires_at": now(),
            "lease_token": token,
            "lease_until": now() + self.lease_sec,
        }
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(c).values(id=conversation_id, **row)
        statement = statement.on_conflict_do_update(
            index_elements=[c.c.id], set_=row, where=and_(not_(is_kept), not_(is_held))
        )
        return self._database.change(statement) == 1
