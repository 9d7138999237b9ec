"""One reply at a time for each conversation."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import ConversationBusy


class Lease:
    """The right to write one conversation, from the start of a turn until its reply is kept."""

    def __init__(self, leases: Leases, conversation_id: str) -> None:
        self._leases = leases
        self.conversation_id = conversation_id
        self._writing = threading.Lock()  # guards what follows
        self._is_revoked = False  # the conversation was cleared meanwhile: what comes must not be kept

    def write(self, save: Callable[[], None]) -> None:
        """Saves, unless the conversation was cleared since the turn began."""
        with self._writing:
            if not self._is_revoked:
                save()

    def revoke(self) -> None:
        with self._writing:
            self._is_revoked = True

    def close(self) -> None:
        self._leases.give_back(self)


class Leases:
    """Shared by all threads of one process."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()  # guards everything above

    def __repr__(self) -> str:
        return f"<Leases [{len(self._held)} held]>"

    def hold(self, conversation_id: str) -> Lease:
        with self._lock:
            if conversation_id in self._held:
                raise ConversationBusy(
                    "this conversation already has a reply in the making; wait for it, or stop it"
                )
            lease = self._held[conversation_id] = Lease(self, conversation_id)
            return lease

    def give_back(self, lease: Lease) -> None:
        with self._lock:
            if self._held.get(lease.conversation_id) is lease:
                del self._held[lease.conversation_id]

    def revoke(self, conversation_id: str) -> None:
        """What the reply in the making leads to will not be kept."""
        with self._lock:
            lease = self._held.get(conversation_id)
        if lease is not None:
            lease.revoke()
