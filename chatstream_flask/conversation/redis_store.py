"""Store in Redis: shared by all processes and machines; Redis itself deletes what has expired."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import redis
from redis.backoff import ConstantBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from ..config import check_int, check_number, shown
from ..errors import ConfigError, ConversationBusy, StoreUnavailable
from .lease_keeper import LeaseKeeper
from .local_leases import BUSY
from .record_lines import NEWLINE, Line, LinesChanged, read_lines
from .retention import log_exceeding
from .store import Lease

SOCKET_TIMEOUT_SEC = 2.0  # per attempt; a command is retried once on a new connection
KEYS_AT_ONCE, PAUSE_SEC = 500, 0.01  # of a purge
HOLDER_SEC = 172_800  # longer than any reply takes

Result = TypeVar("Result")

# Each conversation has three keys. `lease` expires unless its holder renews it; `holder` says who held the
# lease last; `record` is the conversation, as lines. A reply whose process was suspended for longer than the
# lease is still stored if nobody has held the conversation since, because saving checks `holder`.
# Scripts get KEYS: lease, holder[, record] and ARGV: token, ...

HOLD = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1
"""
SAVE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local start, size = tonumber(ARGV[4]), redis.call('STRLEN', KEYS[3])
if start == 0 then
  redis.call('SET', KEYS[3], ARGV[2])
elseif size == start or size == start + #ARGV[2] then
  redis.call('SETRANGE', KEYS[3], start, ARGV[2])
else
  return -1
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
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
REMOVE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('DEL', KEYS[2])
"""


class StoredKey(NamedTuple):
    """Key of a conversation's record."""

    expires_in_ms: int
    num_bytes: int
    name: str


class RedisStore:
    """Store on a Redis server or cluster.

    Each call is one command or one script and can be retried safely. Only Redis' own clock is used.
    """

    def __init__(
        self,
        client_or_url: redis.Redis | RedisCluster | str,
        *,
        ttl_sec: float,
        prefix: str = "chatstream:",
        lease_sec: float = 30.0,
        max_conversations: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Connect at the first call.

        :param client_or_url: a client keeps its own timeouts, which should be short
        :param ttl_sec: seconds after its last turn for which a conversation is kept
        :param prefix: start of all keys
        :param lease_sec: seconds for which a conversation stays busy when its process was killed
        :param max_conversations: conversations that are kept after a purge; None: no limit
        :param max_bytes: size of their records as JSON in UTF-8 that is kept after a purge; None: no limit
        :raises ConfigError: a value is not allowed
        """
        check_number("ttl_sec", ttl_sec, 0.001, 1e10)
        check_number("lease_sec", lease_sec, 0.1, 3600)
        for name, limit in (("max_conversations", max_conversations), ("max_bytes", max_bytes)):
            if limit is not None:
                check_int(name, limit, 1)
        self._max_conversations = math.inf if max_conversations is None else max_conversations
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        if set("{}") & set(prefix):  # braces mark the part of a key that selects its cluster slot
            raise ConfigError(f"the prefix of a RedisStore must not contain braces: {shown(prefix)}")
        self.ttl_sec = ttl_sec
        self.lease_sec = lease_sec
        self._prefix = prefix
        self._is_own_client = isinstance(client_or_url, str)
        self._client: Any = connect(client_or_url) if isinstance(client_or_url, str) else client_or_url
        self._hold = self._client.register_script(HOLD)
        self._save = self._client.register_script(SAVE)
        self._renew = self._client.register_script(RENEW)
        self._release = self._client.register_script(RELEASE)
        self._remove = self._client.register_script(REMOVE)
        self._keeper = LeaseKeeper(self)

    def __repr__(self) -> str:
        return f"<RedisStore {self._prefix!r} {self._keeper!r}>"

    # -- ConversationStore --------------------------------------------------------------------------

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        return read_lines(self.read_lines(conversation_id))

    def hold(self, conversation_id: str) -> Lease:
        token = self._keeper.new_token()
        args: list[str | int] = [token, _ms(self.lease_sec), _ms(HOLDER_SEC)]
        with self._keeper.released_on_failure(conversation_id, token):
            is_taken = _call(lambda: self._hold(self._keys(conversation_id)[:2], args))
        if not is_taken:
            raise ConversationBusy(BUSY)
        return self._keeper.add(conversation_id, token)

    def delete(self, conversation_id: str) -> None:
        _call(lambda: self._client.delete(*self._keys(conversation_id)))

    def purge(self) -> int:
        """Delete the least recently used conversations beyond the limits; return how many.

        Redis itself deletes expired ones. Conversations with a running reply stay.
        """
        if not _call(self._may_exceed):
            return 0
        kept = sorted(_call(lambda: list(self._stored_keys())))  # the least recently used expires first
        num_left, bytes_left = len(kept), sum(key.num_bytes for key in kept)
        for key in kept:
            if num_left <= self._max_conversations and bytes_left <= self._max_bytes:
                break
            lease = key.name.removesuffix("record") + "lease"
            if _call(partial(self._remove, [lease, key.name])):
                num_left -= 1
                bytes_left -= key.num_bytes
        log_exceeding(len(kept) - num_left)
        return len(kept) - num_left

    def _may_exceed(self) -> bool:
        """Return False if all that Redis has is within the limits; most are, and need no look at each key."""
        memory = self._client.info("memory")
        nodes = [memory] if "used_memory" in memory else memory.values()  # of a cluster
        num_bytes = sum(node["used_memory"] for node in nodes)
        return bool(self._client.dbsize() > self._max_conversations or num_bytes > self._max_bytes)

    def _stored_keys(self) -> Iterator[StoredKey]:
        prefix = re.sub(r"([\\*?\[\]^])", r"\\\1", self._prefix)
        found = self._client.scan_iter(f"{prefix}{{*}}:record", count=KEYS_AT_ONCE)
        while names := list(islice(found, KEYS_AT_ONCE)):
            with self._client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.pttl(name).strlen(name)
                answers = iter(pipeline.execute())
            for name in names:
                text = name.decode() if isinstance(name, bytes) else name
                yield StoredKey(next(answers), next(answers), text)
            time.sleep(PAUSE_SEC)

    def close(self) -> None:
        """Stop renewing leases, and close the connection if the store was made from a URL."""
        self._keeper.close()
        if self._is_own_client:
            self._client.close()

    # -- LeaseBackend -------------------------------------------------------------------------------

    def read_lines(self, conversation_id: str) -> list[bytes]:
        *_, record = self._keys(conversation_id)
        text: str | bytes | None = _call(lambda: self._client.get(record))
        if text is None:
            return []
        return (text.encode() if isinstance(text, str) else text).split(NEWLINE)

    def save_if_held(self, conversation_id: str, token: str, line: Line) -> bool:
        text = NEWLINE + line.text if line.num_lines else line.text
        args: list[str | bytes | int] = [token, text, _ms(self.ttl_sec), line.num_bytes]
        result = _call(lambda: self._save(self._keys(conversation_id), args))
        if result < 0:
            raise LinesChanged
        return bool(result)

    def renew(self, conversation_id: str, token: str) -> bool:
        args: list[str | int] = [token, _ms(self.lease_sec)]
        return bool(_call(lambda: self._renew(self._keys(conversation_id)[:2], args)))

    def release(self, conversation_id: str, token: str) -> None:
        _call(lambda: self._release(self._keys(conversation_id)[:2], [token]))

    def _keys(self, conversation_id: str) -> list[str]:
        """Return the three keys; the part in braces puts them into one cluster slot."""
        return [f"{self._prefix}{{{conversation_id}}}:{name}" for name in ("lease", "holder", "record")]


def connect(url: str) -> redis.Redis:
    """Return a client that connects at its first command.

    Options in the URL, such as `?socket_timeout=1`, override the defaults set here.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_SEC,
            socket_connect_timeout=SOCKET_TIMEOUT_SEC,
            retry=Retry(ConstantBackoff(0.05), 1),
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # raises TypeError for unknown options
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
