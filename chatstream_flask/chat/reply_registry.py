"""The replies in the making and those that have just ended, where a reader may find its own again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..engine.request import GenerationRequest
from ..errors import NotFound

MAX_ENDED = 1024  # replies kept for readers that come back; the oldest go first


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What its visitor may know of it."""

    conversation_id: str
    message_id: str
    user_input: str  # what it answers
    num_kept: int  # messages of the conversation that come before its turn
    num_dropped_turns: int  # left out of what the model reads
    generation: GenerationRequest


class ReplyRegistry:
    """Of one app; shared by all threads of one process. Only who knows the conversation finds a reply."""

    def __init__(self, keep_sec: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_sec = keep_sec  # after their end
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._running: dict[str, Reply] = {}  # by conversation, of which each has one at the most
        self._ended: dict[str, tuple[float, Reply]] = {}  # by message id, until when; the oldest first

    def add(self, reply: Reply) -> None:
        with self._lock:
            self._running[reply.conversation_id] = reply

    def running(self, conversation_id: str) -> Reply | None:
        return self._running.get(conversation_id)

    def end(self, conversation_id: str, message_id: str) -> None:
        """Idempotent."""
        with self._lock:
            reply = self._running.get(conversation_id)
            if reply is None or reply.message_id != message_id:
                return
            del self._running[conversation_id]
            if self._keep_sec:
                self._ended[message_id] = (self._clock() + self._keep_sec, reply)
            self._forget_old()

    def find(self, conversation_id: str, message_id: str) -> Reply:
        """Raises NotFound, also for a reply of another conversation."""
        with self._lock:
            self._forget_old()
            ended = self._ended.get(message_id)
            reply = self._running.get(conversation_id) if ended is None else ended[1]
        if reply is None or (reply.message_id, reply.conversation_id) != (message_id, conversation_id):
            raise NotFound("no such reply is in the making, or has just ended, in your conversation")
        return reply

    def _forget_old(self) -> None:
        now = self._clock()
        while self._ended:
            message_id, (until, _) = next(iter(self._ended.items()))
            if now < until and len(self._ended) <= MAX_ENDED:
                return
            del self._ended[message_id]
