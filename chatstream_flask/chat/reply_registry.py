"""Running replies and those that ended a short time ago, for readers that reconnect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engine.reply_source import ReplySource
from ..errors import NotFound

if TYPE_CHECKING:
    from ..nodes.node import Node

MAX_ENDED = 1024  # ended replies kept for readers that reconnect; the oldest are removed first


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply as its visitor may see it."""

    conversation_id: str
    message_id: str
    user_input: str  # the message that it answers
    num_kept: int  # messages of the conversation before this turn
    num_dropped_turns: int  # left out of the prompt
    source: ReplySource
    sources: list[dict[str, str]] = field(default_factory=list)  # that are shown with it


class ReplyRegistry:
    """The replies of one app, shared by all threads; a reply is found only with its conversation's id.

    With a node, it also finds the replies of the other servers.
    """

    def __init__(
        self, keep_sec: float, node: Node | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep_sec = keep_sec  # seconds after the end of a reply
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._running: dict[str, Reply] = {}  # by conversation id; each has one at most
        # By message id: the time of removal and the reply, the oldest first.
        self._ended: dict[str, tuple[float, Reply]] = {}

    def add(self, reply: Reply) -> None:
        with self._lock:
            self._running[reply.conversation_id] = reply

    def publish(self, reply: Reply) -> None:
        """Let other servers find a reply that was added and submitted.

        :raises StoreUnavailable: what the servers share cannot be reached
        """
        if self._node is not None:
            facts = {name: value for name, value in vars(reply).items() if name != "source"}
            if not reply.sources:
                del facts["sources"]  # which servers of earlier versions do not know
            self._node.publish(facts, reply.source, self._keep_sec)

    def running(self, conversation_id: str) -> Reply | None:
        """Return the running reply of the conversation, of whichever server.

        :raises StoreUnavailable: what the servers share cannot be reached
        """
        reply = self._running.get(conversation_id)
        if reply is not None or self._node is None:
            return reply
        return _reply_of(self._node.running(conversation_id))

    def end(self, conversation_id: str, message_id: str) -> None:
        """Move a running reply to the ended ones. Idempotent."""
        with self._lock:
            reply = self._running.get(conversation_id)
            if reply is None or reply.message_id != message_id:
                return
            del self._running[conversation_id]
            if self._keep_sec:
                self._ended[message_id] = (self._clock() + self._keep_sec, reply)
            self._forget_old()

    def find(self, conversation_id: str, message_id: str) -> Reply:
        """Return a running or recently ended reply of the conversation.

        :raises NotFound: there is none with this id, or it belongs to another conversation
        :raises StoreUnavailable: what the servers share cannot be reached
        """
        with self._lock:
            self._forget_old()
            ended = self._ended.get(message_id)
            reply = self._running.get(conversation_id) if ended is None else ended[1]
        if reply is not None and (reply.message_id, reply.conversation_id) == (message_id, conversation_id):
            return reply
        if self._node is not None and (reply := _reply_of(self._node.find(conversation_id, message_id))):
            return reply
        raise NotFound("your conversation has no running or recently ended reply with this id")

    def _forget_old(self) -> None:
        now = self._clock()
        while self._ended:
            message_id, (until, _) = next(iter(self._ended.items()))
            if now < until and len(self._ended) <= MAX_ENDED:
                return
            del self._ended[message_id]


def _reply_of(found: tuple[dict[str, Any], ReplySource] | None) -> Reply | None:
    """Return a reply of another server."""
    return None if found is None else Reply(**found[0], source=found[1])
