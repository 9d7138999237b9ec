"""This server as one of several that share a Redis: its heartbeat, and the thread that writes there."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ..engine.reply_source import ReplySource
from ..errors import StoreUnavailable
from .lifetime import NODE_TTL_SEC
from .remote_reply import RemoteReply, facts_of
from .reply_relay import ReplyRelay
from .shared_redis import SharedRedis, call, text_of

logger = logging.getLogger("chatstream_flask")

BEAT_SEC = 1.0  # interval of heartbeats
FLUSH_SEC = 0.1  # interval at which the text of running replies is copied

BEAT = """
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
return redis.call('ZADD', KEYS[1] .. 'nodes', until_ms, ARGV[1])
"""


class Node:
    """One server of several; it works between `start` and `stop`, when its engine does."""

    def __init__(self, url: str, name: str) -> None:
        """Connect at the first command.

        :param url: of the Redis that all servers share
        :param name: of the ChatStream
        :raises ConfigError: the URL is not one of Redis
        """
        self._shared = SharedRedis(url, name)
        self._relay = ReplyRelay(self._shared)
        self._wake = threading.Event()
        self._is_stopping = False
        self._is_reachable = True
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Node {self._shared.node}>"

    # -- its thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, as a new node."""
        self._shared.name_node()
        self._relay = ReplyRelay(self._shared)
        self._is_stopping = False
        self._try(self._beat)
        self._thread = threading.Thread(target=self._run, name="chatstream-node", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy the ends of replies and leave; call it when all of them have ended. Idempotent."""
        if self._thread is None:
            return
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        self._try(self._relay.flush)
        self._try(self._leave)
        self._shared.close()

    def _run(self) -> None:
        beat_at = time.monotonic() + BEAT_SEC
        while not self._is_stopping:
            self._wake.wait(min(FLUSH_SEC, BEAT_SEC) if not self._relay.is_idle else BEAT_SEC)
            self._wake.clear()
            if time.monotonic() >= beat_at:
                self._try(self._beat)
                beat_at = time.monotonic() + BEAT_SEC
            if not self._relay.is_idle:
                self._try(self._relay.flush)

    def _beat(self) -> None:
        is_new = self._shared.run(BEAT, self._shared.node, round(NODE_TTL_SEC * 1000))
        if is_new:  # at the start, or Redis has lost what it had
            self._relay.start_over()

    def _leave(self) -> None:
        shared = self._shared
        call(lambda: shared.client.zrem(shared.key("nodes"), shared.node))

    def _try(self, action: Any) -> None:
        """Do something; if Redis fails, say so once."""
        try:
            action()
        except StoreUnavailable as error:
            if self._is_reachable:
                logger.warning(
                    "the Redis that the servers share cannot be reached at the moment: %s", error.__cause__
                )
            self._is_reachable = False
        except Exception:
            logger.exception("%r failed", self)
        else:
            if not self._is_reachable:
                logger.warning("the Redis that the servers share can be reached again")
            self._is_reachable = True

    # -- replies ---------------------------------------------------------------------------------------

    def publish(self, facts: dict[str, Any], source: ReplySource, grace_sec: float) -> None:
        """Let the other servers find a reply of this one, as `ReplyRelay.add` says."""
        self._relay.add(facts, source, grace_sec)
        self._wake.set()

    def find(self, conversation_id: str, message_id: str) -> tuple[dict[str, str], RemoteReply] | None:
        """Return a running or just ended reply of another server with its facts; None if there is none.

        :raises StoreUnavailable: Redis failed
        """
        facts = facts_of(self._shared, message_id)
        if facts.get("conversation_id") != conversation_id:
            return None
        return facts, RemoteReply(self._shared, message_id, facts)

    def running(self, conversation_id: str) -> tuple[dict[str, str], RemoteReply] | None:
        """Return the running reply of a conversation with its facts; None if there is none.

        :raises StoreUnavailable: Redis failed
        """
        key = self._shared.key("running", conversation_id)
        message_id = call(lambda: self._shared.client.get(key))
        found = None if message_id is None else self.find(conversation_id, text_of(message_id))
        return found if found is not None and found[1].is_running else None
