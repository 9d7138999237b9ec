"""Every kind of store on its real back end, and ways to change what the back end has."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
from fakes import FakeClock
from flask import Flask
from flask_session import Session
from flask_session.base import ServerSideSessionInterface
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from tcp_proxy import TCPProxy

from chatstream_flask.conversation import ConversationStore, FileStore, FlaskSessionStore
from chatstream_flask.conversation.file_sessions import file_session_interface
from chatstream_flask.conversation.flask_session_store import KEY_PREFIX
from chatstream_flask.conversation.json_file_cache import JSONFileCache
from chatstream_flask.conversation.memory_store import MemoryStore
from chatstream_flask.conversation.redis_store import RedisStore
from chatstream_flask.conversation.sql_database import make_engine
from chatstream_flask.conversation.sql_store import SQLStore

TTL_SEC = 100.0
LEASE_SEC = 30.0

TABLES = ("chatstream_search", "chatstream_record", "chatstream_conversation", "chatstream_schema")


class Backend:
    """Back end of a store; each call of `new_store` returns a store as another process would have it."""

    url = ""
    purges = True  # False: the back end deletes expired conversations itself
    keeps_leases = True  # False: leases are known to one process only

    def __init__(self) -> None:
        self._closes: list[Callable[[], object]] = []

    def new_store(self, lease_sec: float = LEASE_SEC) -> ConversationStore:
        raise NotImplementedError

    def age(self, seconds: float, *conversation_ids: str) -> None:
        """Make conversations look as if they had been saved that much earlier."""
        raise NotImplementedError

    def end_lease(self, conversation_id: str) -> None:
        """Let the lease expire, as if its holder had stopped renewing it."""
        raise NotImplementedError

    def down(self) -> AbstractContextManager[None]:
        """Make the back end unavailable."""
        raise NotImplementedError

    def num_bytes_written(self) -> int:
        """Return how much the back end has written or been sent since it began."""
        raise NotImplementedError

    def close(self) -> None:
        for close in reversed(self._closes):
            close()


class MemoryBackend(Backend):
    def __init__(self) -> None:
        super().__init__()
        self._clock = FakeClock()

    def new_store(self, lease_sec: float = LEASE_SEC) -> ConversationStore:
        return MemoryStore(ttl_sec=TTL_SEC, clock=self._clock)

    def age(self, seconds: float, *conversation_ids: str) -> None:
        self._clock.advance(seconds)


class FilesBackend(Backend):
    keeps_leases = False

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self._num_replaced_bytes = 0
        self._files: dict[Path, tuple[int, int]] = {}  # inode and size

    def new_store(self, lease_sec: float = LEASE_SEC) -> ConversationStore:
        app = Flask("host")
        app.permanent_session_lifetime = timedelta(seconds=TTL_SEC)
        return FileStore(app, file_session_interface(app, self.directory))

    def age(self, seconds: float, *conversation_ids: str) -> None:
        for conversation_id in conversation_ids:
            path = self.path(conversation_id)
            (expires_at,) = struct.unpack("I", path.read_bytes()[:4])
            path.write_bytes(struct.pack("I", int(expires_at - seconds)) + path.read_bytes()[4:])

    def path(self, conversation_id: str) -> Path:
        return Path(JSONFileCache(self.directory)._get_filename(KEY_PREFIX + conversation_id))

    def num_bytes_written(self) -> int:
        """Count a new file as written whole, and a longer one as appended to."""
        for path in self.directory.iterdir():
            stat = path.stat()
            inode, size = self._files.get(path, (0, 0))
            self._num_replaced_bytes += stat.st_size - (size if inode == stat.st_ino else 0)
            self._files[path] = (stat.st_ino, stat.st_size)
        return self._num_replaced_bytes


class OnRedis(Backend):
    purges = False
    record_key = ""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._proxy = TCPProxy(port)
        self._closes.append(self._proxy.close)
        self.redis = redis.Redis(port=port)
        self._closes.append(self.redis.close)
        self.redis.flushall()
        self.url = f"redis://127.0.0.1:{self._proxy.port}/0"

    def age(self, seconds: float, *conversation_ids: str) -> None:
        for key in map(self.record_key.format, conversation_ids):
            left: Any = self.redis.pttl(key)
            self.redis.pexpire(key, int(left - 1000 * seconds))

    def down(self) -> AbstractContextManager[None]:
        return self._proxy.cut()


class RedisBackend(OnRedis):
    record_key = "chatstream:{{{}}}:record"

    def new_store(self, lease_sec: float = LEASE_SEC) -> ConversationStore:
        store = RedisStore(self.url, ttl_sec=TTL_SEC, lease_sec=lease_sec)
        self._closes.append(store.close)
        return store

    def num_bytes_written(self) -> int:
        return int(self.redis.info("stats")["total_net_input_bytes"])

    def end_lease(self, conversation_id: str) -> None:
        assert self.redis.delete(f"chatstream:{{{conversation_id}}}:lease") == 1


class FlaskSessionBackend(OnRedis):
    keeps_leases = False
    record_key = "chatstream:conversation:{}"

    def new_store(self, lease_sec: float = LEASE_SEC) -> ConversationStore:
        client = redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 1))
        self._closes.append(client.close)
        app = Flask("host")
        app.config.update(
            SESSION_TYPE="redis",
            SESSION_REDIS=client,
            PERMANENT_SESSION_LIFETIME=timedelta(seconds=TTL_SEC),
        )
        Session(app)  # type: ignore[no-untyped-call]
        assert isinstance(app.session_interface, ServerSideSessionInterface)
        return FlaskSessionStore(app, app.session_interface)


class SQLBackend(Backend):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.engine = make_engine(url)
        self._closes.append(self.engine.dispose)
        self.execute(*[f"DROP TABLE IF EXISTS {table}" for table in TABLES])

    def new_store(self, lease_sec: float = LEASE_SEC) -> SQLStore:
        store = SQLStore(self.url, ttl_sec=TTL_SEC, lease_sec=lease_sec)
        self._closes.append(store.close)
        return store

    def execute(self, *statements: str, **params: object) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), params)

    def num_bytes_written(self) -> int:
        """Return the size of SQLite's log, which nothing shortens in a test."""
        return Path(self.url.removeprefix("sqlite:///") + "-wal").stat().st_size

    def age(self, seconds: float, *conversation_ids: str) -> None:
        update = "UPDATE chatstream_conversation SET expires_at = expires_at - :seconds WHERE id = :id"
        for conversation_id in conversation_ids:
            self.execute(update, seconds=seconds, id=conversation_id)

    def end_lease(self, conversation_id: str) -> None:
        self.execute("UPDATE chatstream_conversation SET lease_until = 1 WHERE id = :id", id=conversation_id)

    def down(self) -> AbstractContextManager[None]:
        return self._without_table()

    @contextmanager
    def _without_table(self) -> Iterator[None]:
        self.execute("ALTER TABLE chatstream_conversation RENAME TO elsewhere")
        yield
        self.execute("ALTER TABLE elsewhere RENAME TO chatstream_conversation")


class PostgreSQLBackend(SQLBackend):
    def __init__(self, port: int) -> None:
        self._proxy = TCPProxy(port)
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._proxy.port}/postgres")
        self._closes.insert(0, self._proxy.close)

    def num_bytes_written(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).scalar_one())

    def down(self) -> AbstractContextManager[None]:
        return self._proxy.cut()
