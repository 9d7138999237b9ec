"""Store in the memory of one process, for tests, demos and chats that may be lost at a restart."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import check_int, check_number
from ..errors import InvalidRecord
from .local_leases import LocalLease, LocalLeases
from .record_json import from_json, to_json
from .store import Lease


@dataclass(frozen=True)
class StoredRecord:
    """A record as it was saved."""

    text: bytes  # JSON
    expires_at: float


class MemoryStore:
    """Store with a limit on number, bytes and age; the least recently used conversation is removed first.

    A conversation whose lease is held is never removed, so the limits can be exceeded by as much.

    :param max_bytes: of all records as JSON in UTF-8
    :param ttl_sec: seconds after its last save for which a conversation is kept (31 days)
    :param clock: returns seconds; for tests
    """

    def __init__(
        self,
        *,
        max_conversations: int = 10_000,
        max_bytes: int = 256 * 2**20,
        ttl_sec: float = 2_678_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_int("max_conversations", max_conversations, 1)
        check_int("max_bytes", max_bytes, 1)
        check_number("ttl_sec", ttl_sec, 0.001, 1e10)
        self.max_conversations = max_conversations
        self.max_bytes = max_bytes
        self.ttl_sec = ttl_sec
        self._clock = clock
        self._leases = LocalLeases(self)
        self._records: OrderedDict[str, StoredRecord] = OrderedDict()  # most recently used last
        self._num_bytes = 0
        self._lock = threading.Lock()  # guards the two attributes above

    def __repr__(self) -> str:
        return f"<MemoryStore [{len(self._records)} kept] [{self._num_bytes} bytes] {self._leases!r}>"

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        with self._lock:
            stored = self._records.get(conversation_id)
            if stored is None or stored.expires_at <= self._clock():
                return None
            self._records.move_to_end(conversation_id)
        return from_json(stored.text)

    def hold(self, conversation_id: str) -> Lease:
        return self._leases.hold(conversation_id)

    def delete(self, conversation_id: str) -> None:
        self._leases.revoke(conversation_id)
        with self._lock:
            self._remove(conversation_id)

    def purge(self) -> int:
        with self._lock:
            return self._remove_expired()

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        return self.load(lease.conversation_id)

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        conversation_id = lease.conversation_id
        text = to_json(record).encode()
        if len(text) > self.max_bytes:
            raise InvalidRecord(
                f"a conversation of {len(text)} bytes does not fit into a MemoryStore of "
                f"max_bytes={self.max_bytes}: raise max_bytes, or set CHATSTREAM_MAX_CONVERSATION_BYTES"
            )
        with self._lock:
            self._remove(conversation_id)
            self._records[conversation_id] = StoredRecord(text, self._clock() + self.ttl_sec)
            self._num_bytes += len(text)
            if self._is_over_bounds:
                self._remove_expired()
                self._remove_least_recent()

    @property
    def _is_over_bounds(self) -> bool:
        return len(self._records) > self.max_conversations or self._num_bytes > self.max_bytes

    def _remove_expired(self) -> int:
        now = self._clock()
        expired = [
            id_ for id_, stored in self._records.items() if stored.expires_at <= now and self._is_free(id_)
        ]
        for conversation_id in expired:
            self._remove(conversation_id)
        return len(expired)

    def _remove_least_recent(self) -> None:
        for conversation_id in list(self._records):
            if not self._is_over_bounds:
                return
            if self._is_free(conversation_id):
                self._remove(conversation_id)

    def _is_free(self, conversation_id: str) -> bool:
        return not self._leases.is_held(conversation_id)

    def _remove(self, conversation_id: str) -> None:
        stored = self._records.pop(conversation_id, None)
        if stored is not None:
            self._num_bytes -= len(stored.text)
