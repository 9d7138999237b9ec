"""A reply that another server generates, read from the copy in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ..engine.outcome import FinishReason, Outcome
from ..engine.readers import Reader
from ..engine.reasoning import Piece
from ..engine.reply_text import joined
from ..errors import StoreUnavailable
from .lifetime import NODE_TTL_SEC
from .outcome_json import from_json
from .reply_relay import READER_SEC
from .shared_redis import SharedRedis, call, text_of

FACTS_SEC = 0.2  # interval at which the state of a reply without new text is read
GIVE_UP_SEC = 30.0  # without Redis

IS_ALIVE = """
local time = redis.call('TIME')
local until_ms = redis.call('ZSCORE', KEYS[1] .. 'nodes', ARGV[1])
return until_ms and tonumber(until_ms) > time[1] * 1000 + time[2] / 1000 and 1 or 0
"""

DIED = "the server that was writing this reply has stopped; send your message again"


class RemoteReply:
    """Source of a reply of another server; as long as it is read there, that server knows of a reader."""

    is_local = False
    num_chars = None
    flush_interval_sec = 0.0  # the other server has collected text already

    def __init__(
        self,
        shared: SharedRedis,
        message_id: str,
        facts: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a source.

        :param facts: what Redis has of the reply
        """
        self._shared = shared
        self._message_id = message_id
        self._facts = facts
        self._clock = clock
        self._read_at = clock()  # the facts
        self._told_at = float("-inf")  # the other server of this reader
        self._reached_at = clock()  # Redis

    def __repr__(self) -> str:
        return f"<RemoteReply {self._message_id[:8]} {self._state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteReply) and other._message_id == self._message_id

    def __hash__(self) -> int:
        return hash(self._message_id)

    # -- its state ---------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, and its server is alive.

        :raises StoreUnavailable: Redis failed
        """
        return "outcome" not in self._facts and self._is_server_alive

    @property
    def is_waiting(self) -> bool:
        return self._state not in ("started", "ended")

    @property
    def is_started(self) -> bool:
        return self._state == "started"

    @property
    def queue_place(self) -> tuple[int, float | None] | None:
        place = json.loads(self._state or "null") if self.is_waiting else None
        return None if place is None else (place[0], place[1])

    @property
    def _state(self) -> str:
        return self._facts.get("state", "")

    @property
    def _is_server_alive(self) -> bool:
        return bool(self._shared.run(IS_ALIVE, self._facts["node"]))

    # -- reading -----------------------------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """Do nothing: `read` tells the other server."""

    def detach(self, reader: Reader, grace_sec: float) -> None:
        """Do nothing: the other server notices."""

    def read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        """Read as `GenerationRequest.read` does.

        While Redis cannot be reached there is nothing new, for `GIVE_UP_SEC`.

        :raises StoreUnavailable: Redis could not be reached for longer than that
        """
        try:
            news = self._read(offset, timeout)
        except StoreUnavailable:
            if self._clock() - self._reached_at >= GIVE_UP_SEC:
                raise
            time.sleep(timeout)
            return [], None
        self._reached_at = self._clock()
        return news

    def wait_for_outcome(self, timeout: float) -> None:
        time.sleep(timeout)

    def _read(self, offset: int, timeout: float) -> tuple[list[Piece], Outcome | None]:
        if self._clock() - self._told_at >= READER_SEC / 3:
            self._told_at = self._clock()
            self._tell("read")
        key, block_ms = self._shared.key("text", self._message_id), max(round(timeout * 1000), 1)
        found = call(lambda: self._shared.client.xread({key: f"{offset}-0"}, block=block_ms))
        pieces: list[Piece] = []
        for entry_id, fields in found[0][1] if found else []:
            end, is_end = map(int, entry_id.split(b"-"))
            if is_end:
                self._read_facts()
                return joined(pieces), self._outcome()
            ((kind, value),) = fields.items()
            text = text_of(value)
            if len(text) < end - offset:  # Redis has lost what was before it, and will get it again
                time.sleep(timeout)
                break
            pieces.append(Piece(text[offset - end :], kind == b"reasoning"))
            offset = end
        if pieces:
            self._facts["state"] = "started"
            return joined(pieces), None
        if self._clock() - self._read_at >= FACTS_SEC:
            self._read_facts()
            return [], self._outcome()
        return [], None

    def _read_facts(self) -> None:
        self._facts = facts_of(self._shared, self._message_id) | {"node": self._facts["node"]}
        self._read_at = self._clock()

    def _outcome(self) -> Outcome | None:
        if "outcome" in self._facts:
            return from_json(self._facts["outcome"])
        if "message_id" in self._facts and self._is_server_alive:
            return None
        return Outcome(finish_reason=FinishReason.ERROR, error=DIED)

    # -- asking its server ---------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the other server; raises StoreUnavailable if Redis fails."""
        self._tell("cancel")

    def answer_now(self) -> None:
        """Ask the other server; raises StoreUnavailable if Redis fails."""
        self._tell("answer_now")

    def _tell(self, command: str) -> None:
        key = self._shared.key("commands", self._facts["node"])
        pipe = self._shared.pipeline()
        pipe.rpush(key, json.dumps({"command": command, "message_id": self._message_id}))
        pipe.expire(key, round(2 * NODE_TTL_SEC))
        call(pipe.execute)


def facts_of(shared: SharedRedis, message_id: str) -> dict[str, str]:
    """Return what Redis has of a reply; {} if it has nothing.

    :raises StoreUnavailable: Redis failed
    """
    facts = call(lambda: shared.client.hgetall(shared.key("reply", message_id)))
    return {text_of(name): text_of(value) for name, value in facts.items()}
