"""This server as one of several that share a Redis: its heartbeat, and the thread that writes there."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..engine.reply_source import ReplySource
from ..engine.sharing import Place, SharedQueue
from ..errors import StoreUnavailable
from .remote_reply import RemoteReply, fields_of
from .reply_relay import ReplyRelay
from .shared_limits import SharedLimits
from .shared_redis import SharedRedis, call, text_of

logger = logging.getLogger("chatstream_flask")

BEAT_SEC = 1.0  # interval of heartbeats
FLUSH_SEC = 0.1  # interval at which the text of running replies is copied
POSITIONS_SEC = 0.5  # interval at which the positions of waiting requests are found
BLOCKED_SEC = 0.05  # interval at which requests are tried again that other servers hold up

Result = TypeVar("Result")


class Node:
    """One server of several, between the start and the stop of its engine: the `Sharing` of that engine.

    Its one thread lets waiting requests run, copies running replies, and says that the server is alive. While
    Redis is away replies go on, waiting requests wait, and new ones are refused.
    """

    def __init__(self, url: str, name: str) -> None:
        """Connect at the first command.

        :param url: of the Redis that all servers share
        :param name: of the ChatStream
        :raises ConfigError: the URL is not one of Redis
        """
        self._shared = SharedRedis(url, name)
        self._relay = ReplyRelay(self._shared)
        self._limits: SharedLimits | None = None  # from the first start on
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._is_stopping = False
        self._is_reachable = True

    def __repr__(self) -> str:
        return f"<Node {self._shared.node}>"

    # -- its thread ----------------------------------------------------------------------------------

    def start(self, queue: SharedQueue, num_slots: int, max_waiting: int) -> None:
        self._shared.name_node()
        self._relay = ReplyRelay(self._shared)
        self._limits = limits = SharedLimits(self._shared, queue, num_slots, max_waiting)
        self._is_stopping = False
        self._beat(limits)
        self._thread = threading.Thread(
            target=self._run, args=[queue, limits], name="chatstream-node", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Copy the ends of replies, and leave."""
        if self._thread is None or self._limits is None:
            return
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        self._try(self._relay.flush, None)
        self._try(self._limits.leave, None)
        self._shared.close()

    def wake(self) -> None:
        self._wake.set()

    def _run(self, queue: SharedQueue, limits: SharedLimits) -> None:
        beat_at = flush_at = positions_at = time.monotonic()
        pause = BEAT_SEC
        while not self._is_stopping:
            self._wake.wait(pause)
            self._wake.clear()
            is_blocked = self._let_run(queue, limits)
            now = time.monotonic()
            if now >= beat_at:
                self._beat(limits)
                beat_at = now + BEAT_SEC
            if queue.num_waiting and now >= positions_at:
                self._try(limits.read_positions, None)
                positions_at = now + POSITIONS_SEC
            if not self._relay.is_idle and now >= flush_at:
                self._try(self._relay.flush, None)
                flush_at = now + FLUSH_SEC
            pause = BLOCKED_SEC if is_blocked else FLUSH_SEC if not self._relay.is_idle else BEAT_SEC
            if queue.num_waiting:
                pause = min(pause, POSITIONS_SEC)

    def _let_run(self, queue: SharedQueue, limits: SharedLimits) -> bool:
        """Let waiting requests run; return whether there are some that other servers hold up."""
        failed: bool | None = False
        while is_started := self._try(lambda: queue.start_next(limits.start), failed):
            pass
        return is_started is False

    def _beat(self, limits: SharedLimits) -> None:
        if not self._try(limits.beat, True):
            self._relay.start_over()  # Redis has lost what it had

    def _try(self, action: Callable[[], Result], otherwise: Result) -> Result:
        """Do something; if Redis fails, say so once, and return the other value."""
        try:
            result = action()
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
            return result
        return otherwise

    # -- limits and turns ------------------------------------------------------------------------------

    def reserve(self, places: Sequence[Place]) -> None:
        self._running_limits.reserve(places)

    def submit(self, place: Place, num_tokens: int) -> None:
        self._running_limits.submit(place, num_tokens)

    def free(self, place: Place, num_tokens: int) -> None:
        self._running_limits.free(place, num_tokens)

    def position(self, place_id: str) -> int | None:
        return self._running_limits.positions.get(place_id)

    @property
    def _running_limits(self) -> SharedLimits:
        if self._limits is None:
            raise StoreUnavailable("the engine has not been started")
        return self._limits

    # -- replies ---------------------------------------------------------------------------------------

    def publish(self, facts: dict[str, Any], source: ReplySource, grace_sec: float) -> None:
        """Let the other servers find a reply of this one, as `ReplyRelay.add` says."""
        self._relay.add(facts, source, grace_sec)
        self._wake.set()

    def find(self, conversation_id: str, message_id: str) -> tuple[dict[str, Any], RemoteReply] | None:
        """Return a running or just ended reply of another server with its facts; None if there is none.

        :raises StoreUnavailable: Redis failed
        """
        fields = fields_of(self._shared, message_id)
        facts = json.loads(fields.get("facts", "{}"))
        if facts.get("conversation_id") != conversation_id:
            return None
        return facts, RemoteReply(self._shared, message_id, fields)

    def running(self, conversation_id: str) -> tuple[dict[str, Any], RemoteReply] | None:
        """Return the running reply that another server writes for a conversation, with its facts, if any.

        :raises StoreUnavailable: Redis failed
        """
        key = self._shared.key("reply_in", conversation_id)
        message_id = call(lambda: self._shared.client.get(key))
        found = None if message_id is None else self.find(conversation_id, text_of(message_id))
        if found is None or found[1].node == self._shared.node:  # one of this server, which has just ended
            return None
        return found if found[1].is_running else None
