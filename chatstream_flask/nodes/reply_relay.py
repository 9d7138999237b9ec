"""Copies the replies of this server to Redis, and does what readers on other servers ask of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ..engine.reply_source import ReplySource
from .outcome_json import to_json
from .shared_redis import SharedRedis, call

RUNNING_TTL_SEC = 60  # after which Redis forgets a reply whose server has died
RENEW_SEC = 15.0  # interval at which a running reply is kept from that
READER_SEC = 3.0  # a reader on another server that has not been heard of for so long has gone
MAX_COMMANDS = 100  # that are taken from Redis at once

# A reply has a hash `reply:<message id>` with `facts`, `node`, `state` and at last `outcome`, and a stream
# `text:<message id>`. The id of an entry of the stream is the number of characters of the reply up to its
# end, followed by 0, or by 1 for the last one, which has the outcome. `reply_in:<conversation id>` is the id
# of the conversation's newest reply.


class RelayedReply:
    """A reply that this server generates, as far as it has been copied."""

    def __init__(self, facts: dict[str, Any], source: ReplySource, grace_sec: float) -> None:
        self.facts = facts
        self.source = source
        self.grace_sec = grace_sec  # how long it goes on without any reader
        self.message_id = facts["message_id"]
        self.num_chars = 0  # that have been copied
        self.has_ended = False  # and has been copied completely
        self.is_unknown = False  # what Redis has of it
        self.read_until: float | None = None  # time until which somebody reads it on another server
        self.state = ""  # that has been copied
        self.renew_at = 0.0

    def close(self) -> None:
        """Do nothing: as a reader of the source it stands for those on other servers."""


class ReplyRelay:
    """The replies of one server; `flush` is called by its thread, again and again."""

    def __init__(self, shared: SharedRedis, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._clock = clock
        self._replies: dict[str, RelayedReply] = {}  # by message id

    @property
    def is_idle(self) -> bool:
        return not self._replies

    def add(self, facts: dict[str, Any], source: ReplySource, grace_sec: float) -> None:
        """Let other servers find a reply.

        :param facts: `message_id`, `conversation_id` and what else its finders get
        :param grace_sec: how long it goes on without any reader, and can be read after its end
        :raises StoreUnavailable: Redis failed
        """
        reply = RelayedReply(facts, source, grace_sec)
        pipe = self._shared.pipeline()
        self._introduce(reply, pipe)
        call(pipe.execute)
        self._replies[reply.message_id] = reply

    def flush(self) -> None:
        """Copy what is new, and follow the commands of other servers.

        :raises StoreUnavailable: Redis failed; the next call copies everything again
        """
        replies = list(self._replies.values())
        pipe = self._shared.pipeline()
        try:
            for reply in replies:
                self._write(reply, pipe)
            pipe.lpop(self._shared.key("commands", self._shared.node), MAX_COMMANDS)
            *_, commands = call(pipe.execute)
        except BaseException:
            self.start_over()
            raise
        for reply in replies:
            if reply.has_ended:
                del self._replies[reply.message_id]
        for command in commands or []:
            self._follow(json.loads(command))
        self._let_readers_go()

    def start_over(self) -> None:
        """Copy every reply from its beginning: what Redis has is not known, or not all."""
        for reply in list(self._replies.values()):
            reply.is_unknown = True

    # -- copying -------------------------------------------------------------------------------------

    def _introduce(self, reply: RelayedReply, pipe: Any) -> None:
        shared, facts = self._shared, reply.facts
        mapping = {"facts": json.dumps(facts), "node": shared.node}
        pipe.hset(shared.key("reply", reply.message_id), mapping=mapping)
        pipe.expire(shared.key("reply", reply.message_id), RUNNING_TTL_SEC)
        pipe.set(shared.key("reply_in", facts["conversation_id"]), reply.message_id, ex=RUNNING_TTL_SEC)
        reply.state, reply.renew_at = "", self._clock() + RENEW_SEC

    def _write(self, reply: RelayedReply, pipe: Any) -> None:
        shared, source = self._shared, reply.source
        keys = shared.key("reply", reply.message_id), shared.key("text", reply.message_id)
        if reply.is_unknown:
            pipe.delete(keys[1])
            self._introduce(reply, pipe)
            reply.num_chars, reply.is_unknown = 0, False
        pieces, outcome = source.read(reply.num_chars, 0)
        for piece in pieces:
            reply.num_chars += piece.size
            if piece.step is not None:
                fields = {"step": json.dumps(piece.step)}
            else:
                fields = {"reasoning" if piece.is_reasoning else "text": piece.text}
            pipe.xadd(keys[1], fields, id=f"{reply.num_chars}-0")
        state = _state_of(source)
        if state != reply.state:
            pipe.hset(keys[0], "state", state)
            reply.state = state
        if outcome is not None:
            pipe.hset(keys[0], "outcome", to_json(outcome))
            pipe.xadd(keys[1], {"outcome": to_json(outcome)}, id=f"{reply.num_chars}-1")
            for key in keys:
                pipe.pexpire(key, max(round(reply.grace_sec * 1000), 1))
            reply.has_ended = True
        elif pieces or self._clock() >= reply.renew_at:
            pipe.expire(keys[1], RUNNING_TTL_SEC)
        if outcome is None and self._clock() >= reply.renew_at:
            pipe.expire(keys[0], RUNNING_TTL_SEC)
            pipe.expire(shared.key("reply_in", reply.facts["conversation_id"]), RUNNING_TTL_SEC)
            reply.renew_at = self._clock() + RENEW_SEC

    # -- readers on other servers --------------------------------------------------------------------

    def _follow(self, command: dict[str, str]) -> None:
        reply = self._replies.get(command["message_id"])
        if reply is None:  # it has ended
            return
        match command["command"]:
            case "cancel":
                reply.source.cancel()
            case "answer_now":
                reply.source.answer_now()
            case "confirm" | "decline":
                is_confirmed = command["command"] == "confirm"
                reply.source.answer_step(command["step_id"], is_confirmed=is_confirmed)
            case "read":
                if reply.read_until is None:
                    reply.source.attach(reply)
                reply.read_until = self._clock() + READER_SEC

    def _let_readers_go(self) -> None:
        for reply in list(self._replies.values()):
            if reply.read_until is not None and self._clock() >= reply.read_until:
                reply.read_until = None
                reply.source.detach(reply, reply.grace_sec)


def _state_of(source: ReplySource) -> str:
    """Return "started", "ended" for a reply that never was, or its place in the queue as JSON."""
    if source.is_waiting:
        return json.dumps(source.queue_place)
    return "started" if source.is_started else "ended"
