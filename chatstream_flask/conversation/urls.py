"""Stores by URL; the library of a back end is imported only when its URL is used."""

from __future__ import annotations

from typing import Any

from ..config import shown
from ..errors import ConfigError
from .memory_store import MemoryStore
from .store import ConversationStore

ALLOWED = "memory://, redis://, rediss://, unix://, sqlite:///path or postgresql://"


def make_store(
    url: str,
    ttl_sec: float,
    lease_sec: float = 30.0,
    max_conversations: int | None = None,
    max_bytes: int | None = None,
    *,
    is_synced: bool = True,
) -> ConversationStore:
    """Return the store of a URL; it connects at its first call.

    :param ttl_sec: seconds after its last turn for which a conversation is kept
    :param lease_sec: seconds for which a conversation stays busy when its process was killed
    :param max_conversations: limit of a SQLStore or a RedisStore
    :param max_bytes: limit of a SQLStore or a RedisStore
    :param is_synced: whether SQLite flushes each change to the disk
    :raises ConfigError: the URL is wrong, or a package is missing; the message does not show the URL, which
        may contain a password
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(f"the URL of a store must start with {ALLOWED}")
    if scheme == "memory":
        if rest:
            raise ConfigError("memory:// has no options: make a MemoryStore yourself to set other limits")
        return MemoryStore(ttl_sec=ttl_sec)
    options: dict[str, Any] = {
        "ttl_sec": ttl_sec,
        "lease_sec": lease_sec,
        "max_conversations": max_conversations,
        "max_bytes": max_bytes,
    }
    if scheme in ("redis", "rediss", "unix"):
        return _redis_store(url, **options)
    if scheme in ("sqlite", "postgresql", "postgres", "postgresql+psycopg"):
        return _sql_store(url, is_synced=is_synced, **options)
    raise ConfigError(f"the URL of a store must start with {ALLOWED}, not with {shown(scheme)}")


def _redis_store(url: str, **options: Any) -> ConversationStore:
    try:
        from .redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise _missing(error, "redis") from error
    return RedisStore(url, **options)


def _sql_store(url: str, **options: Any) -> ConversationStore:
    try:
        from .sql_store import SQLStore
    except ModuleNotFoundError as error:
        raise _missing(error, "sql") from error
    return SQLStore(url, **options)


def _missing(error: ModuleNotFoundError, extra: str) -> ConfigError:
    return ConfigError(f"{error.name} is not installed: pip install 'chatstream-flask[{extra}]'")
