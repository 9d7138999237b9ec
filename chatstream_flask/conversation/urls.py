"""Stores by URL, as a deployment names them. A back end's library is imported only when asked for."""

from __future__ import annotations

from ..config import shown
from ..errors import ConfigError
from .memory_store import MemoryStore
from .store import ConversationStore

ALLOWED = "memory://, redis://, rediss://, unix://, sqlite:///path or postgresql://"


def make_store(url: str, ttl_sec: float, lease_sec: float = 30.0) -> ConversationStore:
    """Connects at the first call. Raises ConfigError, without the URL: it may hold a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(f"the URL of a store must begin with {ALLOWED}")
    if scheme == "memory":
        if rest:
            raise ConfigError("memory:// takes nothing more; for other bounds make a MemoryStore")
        return MemoryStore(ttl_sec=ttl_sec)
    if scheme in ("redis", "rediss", "unix"):
        return _redis_store(url, ttl_sec, lease_sec)
    if scheme in ("sqlite", "postgresql", "postgres", "postgresql+psycopg"):
        return _sql_store(url, ttl_sec, lease_sec)
    raise ConfigError(f"the URL of a store must begin with {ALLOWED}, not with {shown(scheme)}")


def _redis_store(url: str, ttl_sec: float, lease_sec: float) -> ConversationStore:
    try:
        from .redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise _missing(error, "redis") from error
    return RedisStore(url, ttl_sec=ttl_sec, lease_sec=lease_sec)


def _sql_store(url: str, ttl_sec: float, lease_sec: float) -> ConversationStore:
    try:
        from .sql_store import SQLStore
    except ModuleNotFoundError as error:
        raise _missing(error, "sql") from error
    return SQLStore(url, ttl_sec=ttl_sec, lease_sec=lease_sec)


def _missing(error: ModuleNotFoundError, extra: str) -> ConfigError:
    return ConfigError(f"{error.name} is not installed: pip install 'chatstream-flask[{extra}]'")
