"""Tables of SQLStore and their migrations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
)
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ..errors import ConfigError, StoreUnavailable

INIT_DB = "run `flask chatstream init-db`"

SEARCH_MARK = "\u02b0"  # begins a term that is no word: words are in the form NFKC, which has no such letter

# Migration n turns version n into version n + 1; a statement that differs between databases is a dict by
# dialect, None for one that has none. A migration that has been released is never changed.
# Times are seconds since 1970 by the database's own clock.
MIGRATIONS: tuple[tuple[str | dict[str, str | None], ...], ...] = (
    (
        """CREATE TABLE chatstream_conversation (
            id TEXT NOT NULL PRIMARY KEY,
            record TEXT,
            created_at DOUBLE PRECISION NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL,
            expires_at DOUBLE PRECISION NOT NULL,
            lease_token TEXT,
            lease_until DOUBLE PRECISION NOT NULL DEFAULT 0
        )""",
        "CREATE INDEX chatstream_conversation_expires_at ON chatstream_conversation (expires_at)",
    ),
    (
        "ALTER TABLE chatstream_conversation ADD COLUMN owner TEXT",
        "ALTER TABLE chatstream_conversation ADD COLUMN title TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX chatstream_conversation_owner ON chatstream_conversation (owner, updated_at)",
    ),
    (
        "ALTER TABLE chatstream_conversation ADD COLUMN is_pinned BOOLEAN NOT NULL DEFAULT FALSE",
        "DROP INDEX chatstream_conversation_owner",
        "CREATE INDEX chatstream_conversation_owner "
        "ON chatstream_conversation (owner, is_pinned, updated_at, id)",
        # One row for each turn, and one for each title: their words, and marked terms for the owner ("o"),
        # and for the conversation of a turn ("c") or a title ("t").
        {
            "sqlite": "CREATE VIRTUAL TABLE chatstream_search USING fts5(terms, conversation_id UNINDEXED, "
            "tokenize = 'unicode61 remove_diacritics 0', detail = none, columnsize = 0, prefix = '2 3')",
            "postgresql": """CREATE TABLE chatstream_search (
                rowid BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                terms TSVECTOR NOT NULL,
                conversation_id TEXT NOT NULL REFERENCES chatstream_conversation (id) ON DELETE CASCADE
            )""",
        },
        {
            "sqlite": """CREATE TRIGGER chatstream_search_delete AFTER DELETE ON chatstream_conversation BEGIN
                DELETE FROM chatstream_search WHERE rowid IN (
                    SELECT rowid FROM chatstream_search WHERE chatstream_search MATCH '"' || char(688) || 'c'
                    || hex(old.id) || '" OR "' || char(688) || 't' || hex(old.id) || '"'
                );
            END""",
            "postgresql": "CREATE INDEX chatstream_search_conversation "
            "ON chatstream_search (conversation_id)",
        },
        {
            "sqlite": None,
            "postgresql": "CREATE INDEX chatstream_search_terms ON chatstream_search USING GIN (terms)",
        },
    ),
    (  # a table of its own for the records, so that neither a turn nor a lease writes them anew
        """CREATE TABLE chatstream_record (
            conversation_id TEXT NOT NULL REFERENCES chatstream_conversation (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            line TEXT NOT NULL,
            PRIMARY KEY (conversation_id, number)
        )""",
        {
            "sqlite": """CREATE TRIGGER chatstream_record_delete AFTER DELETE ON chatstream_conversation BEGIN
                DELETE FROM chatstream_record WHERE conversation_id = old.id;
            END""",
            "postgresql": None,
        },
        "INSERT INTO chatstream_record SELECT id, 0, record FROM chatstream_conversation WHERE record <> ''",
        "ALTER TABLE chatstream_conversation ADD COLUMN num_bytes BIGINT NOT NULL DEFAULT 0",
        {
            "sqlite": "UPDATE chatstream_conversation SET num_bytes = length(CAST(record AS BLOB)) "
            "WHERE record <> ''",
            "postgresql": "UPDATE chatstream_conversation SET num_bytes = octet_length(record) "
            "WHERE record <> ''",
        },
        "UPDATE chatstream_conversation SET record = NULL",
        # Servers of the earlier version that are still running must not find what they know: a new turn
        # would replace the conversation.
        "ALTER TABLE chatstream_conversation RENAME COLUMN record TO former_record",
    ),
)

METADATA = MetaData()

conversations = Table(
    "chatstream_conversation",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("owner", Text),  # None: anonymous
    Column("title", Text, nullable=False, default=""),
    Column("former_record", Text),  # always None: SQLite drops columns only since 3.35
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("lease_token", Text),
    Column("lease_until", Double, nullable=False, default=0.0),
    Column("is_pinned", Boolean, nullable=False, default=False),
    Column("num_bytes", BigInteger, nullable=False, default=0),  # of its lines; 0: no turn yet
    Index("chatstream_conversation_expires_at", "expires_at"),
    Index("chatstream_conversation_owner", "owner", "is_pinned", "updated_at", "id"),
)

records = Table(  # of conversations, with which they are deleted
    "chatstream_record",
    METADATA,
    Column("conversation_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0 on
    Column("line", Text, nullable=False),  # see RecordLines
)


class now(FunctionElement[float]):
    """SQL expression: seconds since 1970 by the database's clock, as the clocks of app servers may differ."""

    type = Double()
    inherit_cache = True


@compiles(now)
def _unknown(element: now, compiler: Any, **options: Any) -> str:
    raise CompileError(f"now() is not defined for {compiler.dialect.name}")


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM now()) AS DOUBLE PRECISION)"


def create_or_migrate(engine: Engine) -> None:
    """Create the tables or migrate them to the current version, in one transaction.

    When several processes call it at once, one does the work and the others wait.

    :param engine: in autocommit mode, so that the BEGIN below works with every driver
    :raises ConfigError: the tables have a newer version
    """
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "BEGIN")
        try:
            if engine.dialect.name == "postgresql":
                # A lock until the transaction ends; the number is arbitrary but must never change.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7238462810)")
            _migrate(connection)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


def check_version(connection: Connection) -> None:
    """Raise StoreUnavailable unless the tables have the current version."""
    version = _version(connection)
    if version == 0:
        raise StoreUnavailable(f"the tables for conversations are missing: {INIT_DB}")
    if version < len(MIGRATIONS):
        raise StoreUnavailable(
            f"the tables for conversations have version {version}, but {len(MIGRATIONS)} is needed: {INIT_DB}"
        )
    if version > len(MIGRATIONS):
        raise StoreUnavailable(_too_new(version))


def _migrate(connection: Connection) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise ConfigError(_too_new(version))
    if version == 0:
        connection.exec_driver_sql("CREATE TABLE chatstream_schema (version INTEGER NOT NULL)")
        connection.exec_driver_sql("INSERT INTO chatstream_schema (version) VALUES (0)")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            text = statement[connection.dialect.name] if isinstance(statement, dict) else statement
            if text is not None:
                connection.exec_driver_sql(text)
    connection.exec_driver_sql(f"UPDATE chatstream_schema SET version = {len(MIGRATIONS)}")


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table("chatstream_schema"):
        return 0
    return int(connection.exec_driver_sql("SELECT version FROM chatstream_schema").scalar_one())


def _too_new(version: int) -> str:
    return (
        f"the tables for conversations have version {version}, but this version of chatstream_flask "
        f"supports {len(MIGRATIONS)}: install the version that created them, or a newer one"
    )
