"""Leases for stores that one process has for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import ConversationBusy

Save = Callable[[str, dict[str, Any]], None]

BUSY = "this conversation already has a reply in the making; wait for it, or stop it"


class LocalLease:
    def __init__(self, leases: LocalLeases, conversation_id: str) -> None:
        self._leases = leases
        self.conversation_id = conversation_id
        self._writing = threading.Lock()  # guards what follows
        self._is_ended = False

    def save(self, record: dict[str, Any]) -> bool:
        with self._writing:
            if not self._is_ended:
                self._leases.save(self.conversation_id, record)
            return not self._is_ended

    def close(self) -> None:
        self.revoke()
        self._leases.release(self)

    def revoke(self) -> None:
        """Waits for a save that is under way."""
        with self._writing:
            self._is_ended = True


class LocalLeases:
    """Who holds which conversation; `save` is what a lease that has not ended may do."""

    def __init__(self, save: Save) -> None:
        self.save = save
        self._held: dict[str, LocalLease] = {}
        self._lock = threading.Lock()  # guards everything above

    def __repr__(self) -> str:
        return f"<LocalLeases [{len(self._held)} held]>"

    def hold(self, conversation_id: str) -> LocalLease:
        with self._lock:
            if conversation_id in self._held:
                raise ConversationBusy(BUSY)
            lease = self._held[conversation_id] = LocalLease(self, conversation_id)
            return lease

    def is_held(self, conversation_id: str) -> bool:
        return conversation_id in self._held

    def release(self, lease: LocalLease) -> None:
        with self._lock:
            if self._held.get(lease.conversation_id) is lease:
                del self._held[lease.conversation_id]

    def revoke(self, conversation_id: str) -> None:
        """Whoever holds it may not save any more, and the next one may hold it at once."""
        with self._lock:
            lease = self._held.pop(conversation_id, None)
        if lease is not None:
            lease.revoke()
