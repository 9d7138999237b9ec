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

FIELDS_SEC = 0.2  # interval at which the state of a reply without new text is read
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
        fields: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a source.

        :param fields: of its hash in Redis
        """
        self._shared = shared
        self._message_id = message_id
        self._fields = fields
        self._clock = clock
        self._read_at = clock()  # the fields
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
        return "outcome" not in self._fields and self._is_server_alive

    @property
    def node(self) -> str:
        """The server that generates it."""
        return self._fields["node"]

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
        return self._fields.get("state", "")

    @property
    def _is_server_alive(self) -> bool:
        return bool(self._shared.run(IS_ALIVE, self._fields["node"]))

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
        pieces, outcome = self._new_entries(offset, max(round(timeout * 1000), 1))
        if pieces:
            self._fields["state"] = "started"
        elif outcome is None and self._clock() - self._read_at >= FIELDS_SEC:
            self._fields = fields_of(self._shared, self._message_id) | {"node": self._fields["node"]}
            self._read_at = self._clock()
            if (end := self._end()) is not None:
                pieces, outcome = self._new_entries(offset, None)  # that have come since
                outcome = outcome or end
        return pieces, outcome

    def _new_entries(self, offset: int, block_ms: int | None) -> tuple[list[Piece], Outcome | None]:
        """Return what the stream has after the first `offset` characters; wait so long if it has nothing."""
        key = self._shared.key("text", self._message_id)
        found = call(lambda: self._shared.client.xread({key: f"{offset}-0"}, block=block_ms))
        pieces: list[Piece] = []
        for entry_id, fields in found[0][1] if found else []:
            end = int(entry_id.split(b"-")[0])
            ((kind, value),) = fields.items()
            text = text_of(value)
            if kind == b"outcome":
                return joined(pieces), from_json(text)
            if kind == b"step":
                pieces.append(Piece("", step=json.loads(text)))
                offset = end
                continue
            if len(text) < end - offset:  # Redis has lost what was before it, and will get it again
                time.sleep((block_ms or 0) / 1000)
                break
            pieces.append(Piece(text[offset - end :], kind == b"reasoning"))
            offset = end
        return joined(pieces), None

    def _end(self) -> Outcome | None:
        """Return how the reply has ended; None if it has not."""
        if "outcome" in self._fields:
            return from_json(self._fields["outcome"])
        if "facts" in self._fields and self._is_server_alive:
            return None
        return Outcome(finish_reason=FinishReason.ERROR, error=DIED)

    # -- asking its server ---------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the other server; raises StoreUnavailable if Redis fails."""
        self._tell("cancel")

    def answer_now(self) -> None:
        """Ask the other server; raises StoreUnavailable if Redis fails."""
        self._tell("answer_now")

    def answer_step(self, step_id: str, *, is_confirmed: bool) -> bool:
        """Ask the other server, which knows whether it waits; raises StoreUnavailable if Redis fails."""
        self._tell("confirm" if is_confirmed else "decline", step_id=step_id)
        return True

    def _tell(self, command: str, **fields: str) -> None:
        key = self._shared.key("commands", self._fields["node"])
        pipe = self._shared.pipeline()
        pipe.rpush(key, json.dumps({"command": command, "message_id": self._message_id, **fields}))
        pipe.expire(key, round(2 * NODE_TTL_SEC))
        call(pipe.execute)


def fields_of(shared: SharedRedis, message_id: str) -> dict[str, str]:
    """Return the fields of a reply's hash in Redis; {} if there is none.

    :raises StoreUnavailable: Redis failed
    """
    fields = call(lambda: shared.client.hgetall(shared.key("reply", message_id)))
    return {text_of(name): text_of(value) for name, value in fields.items()}
