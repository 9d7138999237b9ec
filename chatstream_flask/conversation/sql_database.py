"""Single statements on SQLite or PostgreSQL, on an engine of our own or of the host app."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Select,
    UpdateBase,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ..errors import ConfigError, StoreUnavailable
from . import sql_schema

DIALECTS = {"sqlite", "postgresql"}
CONNECT_TIMEOUT_SEC = 3
POOL_TIMEOUT_SEC = 5


class SQLDatabase:
    """Database in autocommit mode; each statement borrows a connection from the engine's pool.

    The host app's SQLAlchemy session is not used. All methods raise StoreUnavailable.
    """

    def __init__(self, url_or_engine: str | URL | Engine, is_synced: bool = True) -> None:
        """Make an engine, if none is given.

        :param is_synced: whether an engine made here flushes each change of SQLite to the disk
        """
        self._is_synced = is_synced
        self._is_own_engine = not isinstance(url_or_engine, Engine)
        engine = url_or_engine if isinstance(url_or_engine, Engine) else make_engine(url_or_engine, is_synced)
        if engine.dialect.name not in DIALECTS:
            raise ConfigError(
                f"conversations can be kept in SQLite and PostgreSQL, not in {engine.dialect.name}"
            )
        self.dialect = engine.dialect.name
        self._url = engine.url
        self._engines = {os.getpid(): _autocommit(engine)}  # by process id
        self._is_checked = False  # whether the version of the tables was checked

    def __repr__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def read(self, statement: Select[Any]) -> list[Row[Any]]:
        """Return the rows of a query."""
        with self.connection() as connection:
            return list(connection.execute(statement))

    def change(self, statement: UpdateBase) -> int:
        """Execute a statement; return the number of rows changed."""
        with self.connection() as connection:
            return changed_rows(connection, statement)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Execute the statements of the block together, or none of them."""
        with self.connection() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.dialect == "sqlite" else "BEGIN")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                with suppress(SQLAlchemyError):  # the error that ended the block is raised
                    connection.exec_driver_sql("ROLLBACK")
                raise

    def check_schema(self) -> None:
        """Raise StoreUnavailable unless the tables have the version that this code needs.

        Statements check it once: tables may be migrated while a process runs, but never go back.
        """
        with self._errors_translated(), self._engine.connect() as connection:
            sql_schema.check_version(connection)
        self._is_checked = True

    def create_or_migrate(self) -> None:
        """Create the tables, or migrate older ones."""
        with self._errors_translated():
            sql_schema.create_or_migrate(self._engine)

    def close(self) -> None:
        if self._is_own_engine:
            self._engine.dispose()

    @property
    def _engine(self) -> Engine:
        """Return this process's engine.

        A forked child gets a new one: it can neither use nor close the connections of its parent.
        """
        if not self._is_own_engine:
            return next(iter(self._engines.values()))
        if os.getpid() not in self._engines:
            self._engines.setdefault(os.getpid(), _autocommit(make_engine(self._url, self._is_synced)))
        return self._engines[os.getpid()]

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Give a connection for several statements, each of which is its own transaction."""
        if not self._is_checked:
            self.check_schema()
        with self._errors_translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreUnavailable(
                f"conversations cannot be read or written at the moment: {self.dialect}"
            ) from error


def changed_rows(connection: Connection, statement: UpdateBase) -> int:
    """Execute a statement; return the number of rows changed."""
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def _autocommit(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def make_engine(url: str | URL, is_synced: bool = True) -> Engine:
    """Return an engine that connects at its first statement and replaces broken connections.

    :param is_synced: whether SQLite flushes each change to the disk
    :raises ConfigError: the URL is wrong, or its driver is not installed
    """
    url = _parsed(url)
    try:
        engine = create_engine(
            url,
            connect_args={name: value for name, value in _arguments(url).items() if name not in url.query},
            hide_parameters=True,  # errors are logged and must not contain conversations
            pool_pre_ping=True,
            pool_timeout=POOL_TIMEOUT_SEC,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: pip install 'chatstream-flask[postgresql]'"
        ) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "do_connect", _make_private_file)
        event.listen(engine, "connect", partial(_set_up_sqlite, is_synced))
    return engine


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        name = parsed.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(
            "the URL of a database must be sqlite:///path or postgresql://user:password@host:port/name"
        ) from error
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("SQLite in memory cannot store conversations: name a file, or use memory://")
    return parsed


def _arguments(url: URL) -> dict[str, Any]:
    """Return the driver's default arguments; those in the URL override them."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": POOL_TIMEOUT_SEC}  # seconds to wait for a lock
    return {
        "connect_timeout": CONNECT_TIMEOUT_SEC,
        "tcp_user_timeout": 1000 * POOL_TIMEOUT_SEC,  # ms; for a network that silently drops packets
        "keepalives_idle": POOL_TIMEOUT_SEC,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "prepare_threshold": None,  # no prepared statements, as PgBouncer may not support them
    }


def _make_private_file(dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
    """Create the file of an SQLite database for its owner only, if there is none.

    SQLite gives the files beside it the same permissions.
    """
    if not options.get("uri"):
        with suppress(OSError):  # SQLite reports what is wrong
            os.close(os.open(args[0], os.O_RDWR | os.O_CREAT, 0o600))


def _set_up_sqlite(is_synced: bool, connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
    connection.execute(f"PRAGMA synchronous={'FULL' if is_synced else 'NORMAL'}")  # FULL: flush each commit
