"""Tables of SQLStore and their migrations."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Double, Engine, Index, MetaData, Table, Text, inspect
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ..errors import ConfigError, StoreUnavailable

INIT_DB = "run `flask chatstream init-db`"

# Migration n turns version n into version n + 1. A migration that has been released is never changed.
# Times are seconds since 1970 by the database's own clock.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
)

conversations = Table(
    "chatstream_conversation",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("owner", Text),  # None: anonymous
    Column("title", Text, nullable=False, default=""),
    Column("record", Text),  # JSON; None: no turn yet
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("lease_token", Text),
    Column("lease_until", Double, nullable=False, default=0.0),
    Index("chatstream_conversation_expires_at", "expires_at"),
    Index("chatstream_conversation_owner", "owner", "updated_at"),
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


class num_bytes(FunctionElement[int]):
    """SQL expression: length of a text in UTF-8, without reading a long text."""

    type = BigInteger()
    inherit_cache = True


@compiles(num_bytes, "postgresql")
def _octet_length(element: num_bytes, compiler: Any, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


@compiles(num_bytes, "sqlite")
def _sqlite_length(element: num_bytes, compiler: Any, **options: Any) -> str:
    if sqlite3.sqlite_version_info >= (3, 43):
        return _octet_length(element, compiler, **options)
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


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
            connection.exec_driver_sql(statement)
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
