"""The Redis that the servers of one app share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from ..conversation.redis_store import connect
from ..errors import StoreUnavailable

AWAY = "the Redis that the servers share cannot be reached at the moment"

Result = TypeVar("Result")


class SharedRedis:
    """Redis as one server uses it; all threads share it.

    A *node* is a server process with an engine. Its id is in the sorted set `nodes`, whose scores say until
    when it counts as alive, by Redis' own clock. All keys begin with `prefix`, whose part in braces puts them
    into one slot of a Redis cluster.
    """

    def __init__(self, url: str, name: str) -> None:
        """Connect at the first command.

        :param name: name of the ChatStream; those of other names share nothing with it
        :raises ConfigError: the URL is not one of Redis
        """
        self.node = ""
        self.prefix = f"chatstream:{{nodes:{name}}}:"
        self.client: Any = connect(url)
        self._scripts: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<SharedRedis node {self.node}>"

    def name_node(self) -> None:
        """Begin as a new node: when an engine starts, so that a forked process is another one."""
        self.node = secrets.token_hex(8)

    def key(self, kind: str, name: str = "") -> str:
        return f"{self.prefix}{kind}:{name}" if name else self.prefix + kind

    def run(self, script: str, *args: str | int | float) -> Any:
        """Run a Lua script, which gets `prefix` as its key.

        :raises StoreUnavailable: Redis failed
        """
        if script not in self._scripts:
            self._scripts[script] = self.client.register_script(script)
        return call(lambda: self._scripts[script]([self.prefix], args))

    def pipeline(self) -> Any:
        return self.client.pipeline(transaction=False)

    def close(self) -> None:
        self.client.close()


def call(command: Callable[[], Result]) -> Result:
    """Run a command.

    :raises StoreUnavailable: Redis failed
    """
    try:
        return command()
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailable(AWAY) from error


def text_of(value: bytes | None) -> str:
    return "" if value is None else value.decode()
