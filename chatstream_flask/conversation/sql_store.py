"""Store in SQLite or PostgreSQL, for anonymous conversations and those of logged-in users."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Delete,
    Engine,
    Select,
    Table,
    and_,
    delete,
    false,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from ..config import check_int, check_number
from ..errors import ConversationBusy
from .lease_keeper import LeaseKeeper
from .local_leases import BUSY
from .named_conversations import NamedConversations, is_anonymous
from .record_lines import Line, read_lines
from .retention import log_exceeding
from .sql_database import SQLDatabase, changed_rows
from .sql_index import is_held, is_kept
from .sql_schema import conversations as c
from .sql_schema import now
from .sql_schema import records as r
from .store import Lease

ROWS_AT_ONCE = 500  # that one statement of a purge deletes


class SQLStore(NamedConversations):
    """Store on a database; each call is a few statements, and all times are by the database's clock.

    Holding a new conversation inserts a row that has already expired; its first save extends it.
    """

    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        *,
        ttl_sec: float,
        lease_sec: float = 30.0,
        max_conversations: int | None = None,
        max_bytes: int | None = None,
        is_synced: bool = True,
    ) -> None:
        """Connect at the first call.

        :param url_or_engine: an engine may be `db.engine` of Flask-SQLAlchemy, whose session is not used
        :param ttl_sec: seconds after its last turn for which a conversation is kept
        :param lease_sec: seconds for which a conversation stays busy when its process was killed
        :param max_conversations: conversations without an owner that are kept after a purge; None: no limit
        :param max_bytes: size of their records as JSON in UTF-8 that is kept after a purge; None: no limit
        :param is_synced: whether SQLite has a turn on the disk, and not only in the system's memory, when
            it is saved; without effect on an engine
        :raises ConfigError: a value is not allowed
        """
        check_number("lease_sec", lease_sec, 0.1, 3600)
        for name, limit in (("max_conversations", max_conversations), ("max_bytes", max_bytes)):
            if limit is not None:
                check_int(name, limit, 1)
        self._max_conversations = max_conversations
        self._max_bytes = max_bytes
        super().__init__(SQLDatabase(url_or_engine, is_synced), ttl_sec)
        self.lease_sec = lease_sec
        self._keeper = LeaseKeeper(self)

    def __repr__(self) -> str:
        return f"<SQLStore {self._database!r} {self._keeper!r}>"

    def check_schema(self) -> None:
        """Raise StoreUnavailable, saying what to do, unless the tables exist in the current version."""
        self._database.check_schema()

    def create_or_migrate(self) -> None:
        """Create the tables, or migrate older ones to the current version.

        :raises ConfigError: the tables have a newer version
        """
        self._database.create_or_migrate()

    def close(self) -> None:
        """Stop renewing leases, and close the connections if the store was made from a URL."""
        self._keeper.close()
        self._database.close()

    # -- ConversationStore --------------------------------------------------------------------------

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        return read_lines(self.read_lines(conversation_id))

    def hold(self, conversation_id: str) -> Lease:
        token = self._keeper.new_token()
        with self._keeper.released_on_failure(conversation_id, token):
            is_taken = self._take_lease(conversation_id, token) or self._add(conversation_id, token)
        if not is_taken:
            raise ConversationBusy(BUSY)
        return self._keeper.add(conversation_id, token)

    def delete(self, conversation_id: str) -> None:
        self._database.change(delete(c).where(c.c.id == conversation_id))

    def purge(self) -> int:
        """Delete expired conversations, and the least recently used ones beyond the limits; return how many.

        Each statement changes few rows, so that chats do not wait for it.
        """
        may_go = and_(not_(is_kept), not_(is_held))
        num_expired = self._delete_in_steps(select(c.c.id).where(may_go), may_go)
        num_exceeding = self._delete_in_steps(self._exceeding(), and_(is_anonymous, not_(is_held)))
        log_exceeding(num_exceeding)
        return num_expired + num_exceeding

    def _exceeding(self) -> Select[Any]:
        """Return a query for anonymous conversations beyond the limits, which count from the newest on."""
        newest_first = [c.c.updated_at.desc(), c.c.id]
        size = func.sum(c.c.num_bytes).over(order_by=newest_first, rows=(None, 0))
        rank = func.row_number().over(order_by=newest_first)
        columns = [c.c.id, c.c.updated_at, c.c.lease_until, rank.label("rank"), size.label("size")]
        ranked = select(*columns).where(is_anonymous).subquery().c
        limits = [(ranked.rank, self._max_conversations), (ranked.size, self._max_bytes)]
        exceeds = or_(false(), *[value > limit for value, limit in limits if limit is not None])
        may_go = and_(exceeds, ranked.lease_until <= now())
        return select(ranked.id).where(may_go).order_by(ranked.updated_at, ranked.id.desc())

    def _delete_in_steps(self, ids: Select[Any], condition: ColumnElement[bool]) -> int:
        """Delete what a query finds, if the condition still holds for it; return how many.

        The query is a statement of its own, because SQLite would lock the database for as long as it takes.
        """
        num_deleted = 0
        while found := [row.id for row in self._database.read(ids.limit(ROWS_AT_ONCE))]:
            num = self._database.change(delete(c).where(c.c.id.in_(found), condition))
            if not num:  # another process was quicker
                break
            num_deleted += num
        return num_deleted

    # -- LeaseBackend -------------------------------------------------------------------------------

    def read_lines(self, conversation_id: str) -> list[str]:
        found = (
            select(r.c.line).join(c, c.c.id == r.c.conversation_id).where(c.c.id == conversation_id, is_kept)
        )
        return [row.line for row in self._database.read(found.order_by(r.c.number))]

    def save_if_held(self, conversation_id: str, token: str, line: Line) -> bool:
        times = {"updated_at": now(), "expires_at": now() + self.ttl_sec}
        held = update(c).where(self._has_token(conversation_id, token))
        text = line.text.decode()
        add = self._insert(r).values(conversation_id=conversation_id, number=line.num_lines, line=text)
        add = add.on_conflict_do_update(index_elements=[r.c.conversation_id, r.c.number], set_={"line": text})
        with self._database.transaction() as connection:
            # This also locks the row: neither a new lease nor a deletion comes between.
            if not changed_rows(connection, held.values(num_bytes=line.total_bytes, **times)):
                return False
            if not line.num_lines:
                connection.execute(_lines_of(conversation_id))
            connection.execute(add)
        return True

    def renew(self, conversation_id: str, token: str) -> bool:
        return self._change(self._has_token(conversation_id, token), lease_until=now() + self.lease_sec)

    def release(self, conversation_id: str, token: str) -> None:
        """Remove the token; also the conversation, if nothing was ever saved in it."""
        has_token = self._has_token(conversation_id, token)
        is_of_use = or_(is_kept, c.c.num_bytes > 0)
        if not self._change(and_(has_token, is_of_use), lease_token=None, lease_until=0.0):
            self._database.change(delete(c).where(has_token, not_(is_of_use)))

    def _has_token(self, conversation_id: str, token: str) -> Any:
        return and_(c.c.id == conversation_id, c.c.lease_token == token)

    def _take_lease(self, conversation_id: str, token: str) -> bool:
        """Put the token on an existing conversation whose lease is free; return whether that succeeded."""
        is_free = and_(c.c.id == conversation_id, is_kept, not_(is_held))
        return self._change(is_free, lease_token=token, lease_until=now() + self.lease_sec)

    def _add(self, conversation_id: str, token: str) -> bool:
        """Insert the conversation with the token, replacing an expired one; return whether that succeeded."""
        row: dict[str, Any] = {
            "owner": None,
            "title": "",
            "num_bytes": 0,
            "created_at": now(),
            "updated_at": now(),
            "expires_at": now(),
            "lease_token": token,
            "lease_until": now() + self.lease_sec,
            "is_pinned": False,
        }
        statement = self._insert(c).values(id=conversation_id, **row)
        statement = statement.on_conflict_do_update(
            index_elements=[c.c.id], set_=row, where=and_(not_(is_kept), not_(is_held))
        )
        with self._database.transaction() as connection:
            if not changed_rows(connection, statement):
                return False
            connection.execute(_lines_of(conversation_id))
        return True

    def _insert(self, table: Table) -> Any:
        return (postgresql if self._database.dialect == "postgresql" else sqlite).insert(table)

    def _change(self, which: ColumnElement[bool], **values: Any) -> bool:
        return self._database.change(update(c).where(which).values(**values)) == 1


def _lines_of(conversation_id: str) -> Delete:
    """Return the statement that deletes the record of a conversation."""
    return delete(r).where(r.c.conversation_id == conversation_id)
