"""SQLStore: tables and migrations, conversations of users, and connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from store_backends import LEASE_SEC, TTL_SEC, PostgreSQLBackend, SQLBackend

from chatstream_flask.conversation.sql_schema import METADATA, MIGRATIONS
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.errors import ConfigError, StoreUnavailable

VERSION_1 = """
CREATE TABLE chatstream_schema (version INTEGER NOT NULL);
INSERT INTO chatstream_schema (version) VALUES (1);
CREATE TABLE chatstream_conversation (
    id TEXT NOT NULL PRIMARY KEY,
    record TEXT,
    created_at DOUBLE PRECISION NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    lease_token TEXT,
    lease_until DOUBLE PRECISION NOT NULL DEFAULT 0
);
CREATE INDEX chatstream_conversation_expires_at ON chatstream_conversation (expires_at);
INSERT INTO chatstream_conversation VALUES ('old', '{"v": 1}', 1.5, 2.5, 1e10, NULL, 0)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLBackend]:
    if request.param == "sqlite":
        backend = SQLBackend(f"sqlite:///{tmp_path / 'chat.db'}")
    else:
        backend = PostgreSQLBackend(request.getfixturevalue("postgres_port"))
    yield backend
    backend.close()


@pytest.fixture
def store(empty: SQLBackend) -> SQLStore:
    store = empty.new_store()
    store.create_or_migrate()
    return store


def say(store: SQLStore, conversation_id: str) -> None:
    lease = store.hold(conversation_id)
    lease.save({"v": 1})
    lease.close()


# -- tables ------------------------------------------------------------------------------------------


def test_without_tables_a_sentence_names_the_command(empty: SQLBackend) -> None:
    store = empty.new_store()
    for act in (store.check_schema, lambda: store.load("a"), lambda: store.hold("a")):
        with pytest.raises(StoreUnavailable, match="are missing: run `flask chatstream init-db`"):
            act()
    store.create_or_migrate()
    assert store.load("a") is None


def test_the_tables_are_those_that_the_statements_mean(empty: SQLBackend) -> None:
    empty.new_store().create_or_migrate()
    found = inspect(empty.engine)
    for table in METADATA.tables.values():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key]
        indexes = {index["name"]: index["column_names"] for index in found.get_indexes(table.name)}
        assert indexes == {index.name: [column.name for column in index.columns] for index in table.indexes}


def test_version_1_becomes_todays_and_keeps_its_conversations(empty: SQLBackend) -> None:
    empty.execute(*VERSION_1.replace(": 1", r"\: 1").split(";"))
    store = empty.new_store()
    with pytest.raises(StoreUnavailable, match="have version 1, but 4 is needed: run `flask chatstream"):
        store.load("old")
    store.create_or_migrate()
    store.create_or_migrate()
    assert store.load("old") == {"v": 1}
    assert store.owner_of("old") is None
    assert store.adopt("old", "anna")
    (info,) = store.list("anna")
    assert (info.title, info.created_at.timestamp(), info.updated_at.timestamp()) == ("", 1.5, 2.5)


def test_a_newer_version_is_refused(empty: SQLBackend) -> None:
    empty.new_store().create_or_migrate()
    empty.execute("UPDATE chatstream_schema SET version = 99")
    store = empty.new_store()
    with pytest.raises(ConfigError, match=f"have version 99, .* supports {len(MIGRATIONS)}: install"):
        store.create_or_migrate()
    with pytest.raises(StoreUnavailable, match="have version 99"):
        store.load("a")


def test_a_migration_that_fails_leaves_what_was_there(empty: SQLBackend) -> None:
    empty.execute(*VERSION_1.replace(": 1", r"\: 1").split(";"))
    empty.execute("CREATE INDEX chatstream_conversation_owner ON chatstream_conversation (record)")
    store = empty.new_store()
    with pytest.raises(StoreUnavailable) as caught:
        store.create_or_migrate()
    assert "already exists" in str(caught.value.__cause__)
    columns = {column["name"] for column in inspect(empty.engine).get_columns("chatstream_conversation")}
    assert "owner" not in columns
    empty.execute("DROP INDEX chatstream_conversation_owner")
    store.create_or_migrate()
    assert store.load("old") == {"v": 1}


def test_many_migrate_at_once(empty: SQLBackend) -> None:
    stores = [empty.new_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(SQLStore.create_or_migrate, stores))
    with empty.engine.connect() as connection:
        assert list(connection.execute(text("SELECT version FROM chatstream_schema"))) == [(len(MIGRATIONS),)]


# -- named conversations -----------------------------------------------------------------------------


def test_a_persons_conversations(store: SQLStore) -> None:
    first = store.create("anna", "Ünïcode 日本 \0\ud83d'")
    second = store.create("anna")
    store.create("bert", "his")
    assert store.load(first) is None
    assert [(info.id, info.title) for info in store.list("anna")] == [
        (second, ""),
        (first, "Ünïcode 日本 ?'"),
    ]
    say(store, first)
    assert [info.id for info in store.list("anna")] == [first, second]
    assert [info.id for info in store.list("anna", limit=1, offset=1)] == [second]
    info = store.list("anna")[0]
    assert info.created_at < info.updated_at
    assert info.created_at.utcoffset() is not None
    assert store.list("nobody") == []


def test_only_the_owner_renames(store: SQLStore) -> None:
    id_ = store.create("anna", "old")
    assert not store.rename(id_, "bert", "stolen")
    assert not store.rename("unknown", "anna", "new")
    assert store.rename(id_, "anna", "new")
    assert [info.title for info in store.list("anna")] == ["new"]
    assert (store.is_owner(id_, "anna"), store.is_owner(id_, "bert")) == (True, False)
    assert (store.owner_of(id_), store.owner_of("unknown")) == ("anna", None)


def test_an_anonymous_conversation_is_adopted_once(store: SQLStore) -> None:
    say(store, "a")
    assert store.owner_of("a") is None
    assert store.adopt("a", "anna")
    assert not store.adopt("a", "bert")
    assert not store.adopt("unknown", "anna")
    assert store.owner_of("a") == "anna"
    assert store.load("a") == {"v": 1}


def test_adopted_while_its_first_reply_is_in_the_making(store: SQLStore) -> None:
    lease = store.hold("a")
    assert store.adopt("a", "anna")
    lease.save({"v": 1})
    lease.close()
    assert [info.id for info in store.list("anna")] == ["a"]
    assert store.load("a") == {"v": 1}


def test_a_refused_first_turn_leaves_nothing(store: SQLStore, empty: SQLBackend) -> None:
    store.hold("a").close()
    assert store.load("a") is None
    assert not store.adopt("a", "anna")
    assert num_rows(empty) == 0


def test_to_forget_a_person(store: SQLStore) -> None:
    mine = [store.create("anna") for _ in range(3)]
    store.create("bert")
    lease = store.hold(mine[0])
    assert store.delete_owner("anna") == 3
    assert store.delete_owner("anna") == 0
    lease.save({"v": 1})
    lease.close()
    assert store.list("anna") == []
    assert store.load(mine[0]) is None
    assert len(store.list("bert")) == 1


@pytest.mark.parametrize("owner", [None, "", 7])
def test_nobody_owns_nothing(store: SQLStore, owner: Any) -> None:
    """Check that a missing owner, as for a visitor without login, selects no anonymous conversations."""
    say(store, "a")
    acts: list[Callable[[], object]] = [
        lambda: store.create(owner),
        lambda: store.list(owner),
        lambda: store.rename("a", owner, "title"),
        lambda: store.is_owner("a", owner),
        lambda: store.adopt("a", owner),
        lambda: store.delete_owner(owner),
    ]
    for act in acts:
        with pytest.raises(ValueError, match="an owner must be a non-empty string such as"):
            act()
    assert store.load("a") == {"v": 1}


def test_what_is_over_does_not_come_back(store: SQLStore, empty: SQLBackend) -> None:
    """Check that a new conversation under the id of an expired one has neither its owner nor its title."""
    id_ = store.create("anna", "title")
    say(store, id_)
    empty.age(TTL_SEC + 1, id_)
    assert (store.load(id_), store.list("anna"), store.owner_of(id_)) == (None, [], None)
    assert not store.rename(id_, "anna", "new")
    assert not store.adopt(id_, "bert")
    lease = store.hold(id_)
    assert (store.load(id_), store.owner_of(id_)) == (None, None)
    lease.save({"v": 2})
    lease.close()
    assert (store.load(id_), store.owner_of(id_)) == ({"v": 2}, None)


# -- connections -------------------------------------------------------------------------------------


def test_an_engine_of_the_host_is_used_and_left_alone(store: SQLStore, empty: SQLBackend) -> None:
    """Use a pool of one connection, so that a store would block if it kept a connection after a statement."""
    engine = create_engine(empty.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    ours = SQLStore(engine, ttl_sec=TTL_SEC, lease_sec=LEASE_SEC)
    lease = ours.hold("a")
    with engine.connect() as connection:
        assert connection.get_isolation_level() != "AUTOCOMMIT"
        assert connection.execute(text("SELECT 1")).scalar() == 1
        with pytest.raises(StoreUnavailable):  # it waits for the host's connection, but not for long
            ours.load("a")
        connection.rollback()
    lease.save({"v": 1})
    lease.close()
    assert store.load("a") == {"v": 1}
    ours.close()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM chatstream_conversation")).scalar() == 1
    engine.dispose()


def test_sqlite_writes_ahead_and_its_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = SQLStore(f"sqlite:///{path}?timeout=0.05", ttl_sec=TTL_SEC)
    store.create_or_migrate()
    say(store, "a")
    writer = sqlite3.connect(path, isolation_level=None)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.execute("BEGIN IMMEDIATE")
    assert store.load("a") == {"v": 1}  # readers do not wait for writers
    with pytest.raises(StoreUnavailable):
        store.hold("a")
    writer.execute("COMMIT")
    writer.close()
    say(store, "a")
    store.close()


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    store = SQLStore(f"sqlite:///{tmp_path / 'no' / 'chat.db'}", ttl_sec=TTL_SEC)
    with pytest.raises(StoreUnavailable):
        store.create_or_migrate()
    with pytest.raises(StoreUnavailable):
        store.load("a")
    (tmp_path / "no").mkdir()
    store.create_or_migrate()
    say(store, "a")
    store.close()


def test_texts_of_visitors_are_not_in_errors(store: SQLStore, empty: SQLBackend) -> None:
    store.load("a")
    with empty.down(), pytest.raises(StoreUnavailable) as caught:
        store.create("anna", "my secret")
    assert "my secret" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__cause__}"


# -- what strangers leave -------------------------------------------------------------------------------


def num_rows(backend: SQLBackend, table: str = "chatstream_conversation") -> int:
    with backend.engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def keep(store: SQLStore, conversation_id: str, words: str = "") -> None:
    lease = store.hold(conversation_id)
    lease.save({"words": words})
    lease.close()


def limited(backend: SQLBackend, **limits: Any) -> SQLStore:
    store = SQLStore(backend.url, ttl_sec=TTL_SEC, **limits)
    backend._closes.append(store.close)
    store.create_or_migrate()
    return store


def test_what_is_there_stays_after_a_refused_turn(empty: SQLBackend, store: SQLStore) -> None:
    named = store.create("lucy")
    store.hold(named).close()  # nothing was said in it yet
    keep(store, "a")
    store.hold("a").close()
    assert num_rows(empty) == 2
    assert store.load("a") == {"words": ""}


def test_the_least_recently_used_go_first_but_no_users_and_none_with_a_running_reply(
    empty: SQLBackend, caplog: pytest.LogCaptureFixture
) -> None:
    store = limited(empty, max_conversations=2)
    named = store.create("lucy")
    for name in "abcde":
        keep(store, name)
    keep(store, "b")
    lease = store.hold("a")
    assert store.purge() == 2
    assert [name for name in "abcde" if store.load(name)] == ["a", "b", "e"]
    assert store.owner_of(named) == "lucy"
    assert "the 2 least recently used sessions and conversations were removed" in caplog.text
    lease.close()


def test_all_that_exceed_are_in_use(empty: SQLBackend) -> None:
    store = limited(empty, max_conversations=1)
    keep(store, "a")
    leases = [store.hold(name) for name in "abc"]
    assert store.purge() == 0
    for lease in leases:
        assert lease.save({})
        lease.close()


def test_bytes_are_limited_too(empty: SQLBackend) -> None:
    store = limited(empty, max_bytes=60)
    for name in "abcd":
        keep(store, name, "あ" * 3)  # 12 + 9 bytes
    assert store.purge() == 2
    assert [name for name in "abcd" if store.load(name)] == ["c", "d"]


def test_many_rows_go_in_small_statements(empty: SQLBackend) -> None:
    store = limited(empty, max_conversations=100)
    row = "INSERT INTO chatstream_conversation (id, created_at, updated_at, expires_at) "
    with empty.engine.begin() as connection:
        for n in range(1200):
            times = {"id": f"{n}", "used_at": float(n), "expires_at": 1.0 if n % 2 else 1e10}
            connection.execute(text(row + "VALUES (:id, 0, :used_at, :expires_at)"), times)
            connection.execute(text("INSERT INTO chatstream_record VALUES (:id, 0, '{}')"), {"id": f"{n}"})
    assert store.purge() == 1100
    assert num_rows(empty) == num_rows(empty, "chatstream_record") == 100
    assert (store.load("998"), store.load("1000")) == (None, {})


def test_the_files_of_sqlite_are_for_nobody_else(tmp_path: Path) -> None:
    store = SQLStore(f"sqlite:///{tmp_path / 'chat.db'}", ttl_sec=100)
    store.create_or_migrate()
    lease = store.hold("a")
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} >= {"chat.db", "chat.db-wal"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    lease.close()
    store.close()
