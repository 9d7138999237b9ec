"""Leases of stores that only one process uses."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from ..errors import ConversationBusy
from .record_lines import RecordLines

BUSY = "this conversation already has a running reply: wait for it or stop it"


class LeasedStore(Protocol):
    """Store whose leases are kept here."""

    def load_held(self, lease: LocalLease) -> dict[str, Any] | None:
        """Return the record of the lease's conversation."""

    def save_held(self, lease: LocalLease, record: dict[str, Any]) -> None:
        """Write the record of the lease's conversation; called as long as the lease is valid."""


class LocalLease:
    """Lease that excludes other threads of this process."""

    def __init__(self, leases: LocalLeases, conversation_id: str) -> None:
        self._leases = leases
        self.conversation_id = conversation_id
        self._writing = threading.Lock()  # guards the attribute below
        self._is_revoked = False
        self.lines = RecordLines()  # what it knows of the conversation, in a store that keeps lines

    def load(self) -> dict[str, Any] | None:
        return self._leases.store.load_held(self)

    def save(self, record: dict[str, Any]) -> bool:
        with self._writing:
            if not self._is_revoked:
                self._leases.store.save_held(self, record)
            return not self._is_revoked

    def close(self) -> None:
        self.revoke()
        self._leases.release(self)

    def revoke(self) -> None:
        """Make later saves fail; waits for a save that is in progress."""
        with self._writing:
            self._is_revoked = True


class LocalLeases:
    """Leases of one store, by conversation."""

    def __init__(self, store: LeasedStore) -> None:
        self.store = store
        self._held: dict[str, LocalLease] = {}
        self._lock = threading.Lock()  # guards everything above

    def __repr__(self) -> str:
        return f"<LocalLeases [{len(self._held)} held]>"

    def hold(self, conversation_id: str) -> LocalLease:
        """Return a new lease; raises ConversationBusy while another one is held."""
        with self._lock:
            if conversation_id in self._held:
                raise ConversationBusy(BUSY)
            lease = self._held[conversation_id] = LocalLease(self, conversation_id)
            return lease

    @property
    def held_ids(self) -> list[str]:
        """Return the ids of the conversations whose lease is held."""
        with self._lock:
            return list(self._held)

    def is_held(self, conversation_id: str) -> bool:
        return conversation_id in self._held

    def release(self, lease: LocalLease) -> None:
        """Free the conversation, unless somebody else holds it by now."""
        with self._lock:
            if self._held.get(lease.conversation_id) is lease:
                del self._held[lease.conversation_id]

    def revoke(self, conversation_id: str) -> None:
        """Invalidate the conversation's lease, if there is one; a new one can be held at once."""
        with self._lock:
            lease = self._held.pop(conversation_id, None)
        if lease is not None:
            lease.revoke()
