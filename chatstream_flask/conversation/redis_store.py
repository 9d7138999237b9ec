"""Conversations in Redis: shared by all processes and machines, forgotten by Redis itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from ..config import check_number, shown
from ..errors import ConfigError, ConversationBusy, StoreUnavailable
from .lease_keeper import LeaseKeeper
from .local_leases import BUSY
from .record_json import from_json
from .store import Lease

SOCKET_TIMEOUT_SEC = 2.0  # twice: a broken connection is made anew once
HOLDER_SEC = 172_800  # longer than any reply may take

Result = TypeVar("Result")

# KEYS: lease, holder[, record]; ARGV: token, ...
# `lease` is there while its holder renews it; `holder` says who held it last. Both, so that a reply whose
# process was frozen for longer than the lease is still kept if nobody has begun another turn.

HOLD = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1
"""
SAVE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return 1
"""
RENEW = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
RELEASE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
"""


class RedisStore:
    """Each call is one command or one script, and may be sent twice. No clock is compared but Redis' own."""

    def __init__(
        self,
        client_or_url: redis.Redis | RedisCluster | str,
        *,
        ttl_sec: float,
        prefix: str = "chatstream:",
        lease_sec: float = 30.0,
    ) -> None:
        """:param client_or_url: a client keeps its own timeouts; make them short
        :param ttl_sec: so long after its last turn a conversation is forgotten
        :param lease_sec: so long after `kill -9` of a process its conversations stay busy
        """
        check_number("ttl_sec", ttl_sec, 0.001, 1e10)
        check_number("lease_sec", lease_sec, 0.1, 3600)
        if set("{}") & set(prefix):  # they mark the part that names a cluster's slot
            raise ConfigError(f"the prefix of a RedisStore must have no braces: {shown(prefix)}")
        self.ttl_sec = ttl_sec
        self.lease_sec = lease_sec
        self._prefix = prefix
        self._is_own_client = isinstance(client_or_url, str)
        self._client: Any = connect(client_or_url) if isinstance(client_or_url, str) else client_or_url
        self._hold = self._client.register_script(HOLD)
        self._save = self._client.register_script(SAVE)
        self._renew = self._client.register_script(RENEW)
        self._release = self._client.register_script(RELEASE)
        self._keeper = LeaseKeeper(self)

    def __repr__(self) -> str:
        return f"<RedisStore {self._prefix!r} {self._keeper!r}>"

    # -- as every store -----------------------------------------------------------------------------

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        *_, record = self._keys(conversation_id)
        text: str | bytes | None = _call(lambda: self._client.get(record))
        return None if text is None else from_json(text)

    def hold(self, conversation_id: str) -> Lease:
        token = self._keeper.new_token()
        args: list[str | int] = [token, _ms(self.lease_sec), _ms(HOLDER_SEC)]
        if not _call(lambda: self._hold(self._keys(conversation_id)[:2], args)):
            raise ConversationBusy(BUSY)
        return self._keeper.add(conversation_id, token)

    def delete(self, conversation_id: str) -> None:
        _call(lambda: self._client.delete(*self._keys(conversation_id)))

    def purge(self) -> int:
        """Redis does it."""
        return 0

    def close(self) -> None:
        """What this process holds runs out; a client that was passed in stays open."""
        self._keeper.close()
        if self._is_own_client:
            self._client.close()

    # -- for leases ---------------------------------------------------------------------------------

    def save_if_held(self, conversation_id: str, token: str, text: str) -> bool:
        args: list[str | int] = [token, text, _ms(self.ttl_sec)]
        return bool(_call(lambda: self._save(self._keys(conversation_id), args)))

    def renew(self, conversation_id: str, token: str) -> bool:
        args: list[str | int] = [token, _ms(self.lease_sec)]
        return bool(_call(lambda: self._renew(self._keys(conversation_id)[:2], args)))

    def release(self, conversation_id: str, token: str) -> None:
        _call(lambda: self._release(self._keys(conversation_id)[:2], [token]))

    def _keys(self, conversation_id: str) -> list[str]:
        """All in one slot of a cluster: the part in braces chooses it."""
        return [f"{self._prefix}{{{conversation_id}}}:{name}" for name in ("lease", "holder", "record")]


def connect(url: str) -> redis.Redis:
    """What the URL says (`?socket_timeout=1`) goes before. Connects at the first command."""
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_SEC,
            socket_connect_timeout=SOCKET_TIMEOUT_SEC,
            retry=Retry(ConstantBackoff(0.05), 1),
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # refuses options that it does not know
        return client
    except (ValueError, TypeError) as error:
        raise ConfigError("the URL of Redis must be redis://[:password@]host:port/number") from error


def _call(command: Callable[[], Result]) -> Result:
    try:
        return command()
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailable("conversations cannot be read or written at the moment: Redis") from error


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
