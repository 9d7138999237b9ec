"""Full-text search in SQLite (FTS5) and PostgreSQL (tsvector), on the words that `search_terms` makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, text

from .search_terms import SearchTerm, terms_of
from .sql_schema import SEARCH_MARK

ROWS_AT_ONCE = 300

# By dialect: the condition that a row matches a query, and the value of the column for space-separated terms.
MATCHES = {
    "sqlite": "chatstream_search MATCH :query",
    "postgresql": "terms @@ CAST(:query AS tsquery)",
}
TERMS = {"sqlite": ":terms", "postgresql": "array_to_tsvector(string_to_array(:terms, ' '))"}
WITH_OTHER_TERM = {
    "sqlite": "replace(terms, :old, :new)",
    "postgresql": "ts_delete(terms, :old) || array_to_tsvector(string_to_array(:new, ' '))",
}


class SQLSearch:
    """Rows of words in the table `chatstream_search`: one for each turn and one for each title.

    The rows of a conversation are deleted with it. Methods are called in a transaction.
    """

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect

    def add_turns(
        self, connection: Connection, owner: str, conversation_id: str, texts: Iterable[str]
    ) -> None:
        """Append one row for each turn."""
        for turn in texts:
            self._add(connection, _turn_of(conversation_id), owner, conversation_id, turn)

    def num_turns(self, connection: Connection, conversation_id: str) -> int:
        counted = f"SELECT count(*) FROM chatstream_search WHERE {MATCHES[self._dialect]}"
        return int(connection.execute(text(counted), self._query(_turn_of(conversation_id))).scalar_one())

    def delete_oldest_turns(
        self, connection: Connection, conversation_id: str, number: int | None = None
    ) -> None:
        """Delete the rows of the oldest turns; None: of all."""
        self._delete(connection, _turn_of(conversation_id), number)

    def set_title(self, connection: Connection, owner: str, conversation_id: str, title: str) -> None:
        self._delete(connection, _title_of(conversation_id), None)
        self._add(connection, _title_of(conversation_id), owner, conversation_id, title)

    def give(self, connection: Connection, conversation_id: str, new_owner: str, *owners: str) -> None:
        """Let searches of another owner find a conversation, in place of those of `owners`."""
        moved = (
            f"UPDATE chatstream_search SET terms = {WITH_OTHER_TERM[self._dialect]} WHERE rowid IN "
            f"(SELECT rowid FROM chatstream_search WHERE {MATCHES[self._dialect]})"
        )
        for owner in owners:
            for which in (_turn_of(conversation_id), _title_of(conversation_id)):
                params = {"old": _owned_by(owner), "new": _owned_by(new_owner)} | self._query(which)
                connection.execute(text(moved), params)

    def find(self, connection: Connection, owner: str, wanted: Sequence[SearchTerm]) -> Iterator[str]:
        """Yield the ids of conversations with a row that has all terms, those with the newest row first."""
        found = (
            f"SELECT rowid, conversation_id FROM chatstream_search WHERE {MATCHES[self._dialect]} "
            f"AND rowid < :before ORDER BY rowid DESC LIMIT {ROWS_AT_ONCE}"
        )
        params = self._query(_owned_by(owner), *wanted)
        seen: set[str] = set()
        before = 2**63 - 1
        while rows := connection.execute(text(found), params | {"before": before}).all():
            for row in rows:
                if row.conversation_id not in seen:
                    seen.add(row.conversation_id)
                    yield row.conversation_id
            before = rows[-1].rowid
            if len(rows) < ROWS_AT_ONCE:
                return

    def _add(self, connection: Connection, which: str, owner: str, conversation_id: str, words: str) -> None:
        terms = " ".join([_owned_by(owner), which, *terms_of(words)])
        added = (
            "INSERT INTO chatstream_search (terms, conversation_id) "
            f"VALUES ({TERMS[self._dialect]}, :conversation_id)"
        )
        connection.execute(text(added), {"terms": terms, "conversation_id": conversation_id})

    def _delete(self, connection: Connection, which: str, number: int | None) -> None:
        limit = "" if number is None else f"ORDER BY rowid LIMIT {number}"
        deleted = (
            "DELETE FROM chatstream_search WHERE rowid IN "
            f"(SELECT rowid FROM chatstream_search WHERE {MATCHES[self._dialect]} {limit})"
        )
        connection.execute(text(deleted), self._query(which))

    def _query(self, *wanted: str | SearchTerm) -> dict[str, str]:
        """Return the parameter of a query for rows that have all terms."""
        terms = [SearchTerm(term, False) if isinstance(term, str) else term for term in wanted]
        if self._dialect == "sqlite":
            return {"query": " AND ".join(f'"{term}"{"*" * is_prefix}' for term, is_prefix in terms)}
        return {"query": " & ".join(f"'{term}'{':*' * is_prefix}" for term, is_prefix in terms)}


def _owned_by(owner: str) -> str:
    return f"{SEARCH_MARK}o{_hex(owner)}"


def _turn_of(conversation_id: str) -> str:
    return f"{SEARCH_MARK}c{_hex(conversation_id)}"


def _title_of(conversation_id: str) -> str:
    return f"{SEARCH_MARK}t{_hex(conversation_id)}"


def _hex(name: str) -> str:
    return name.encode("utf-8", "surrogatepass").hex()
