"""Protocol of conversation stores and of their leases."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


class Lease(Protocol):
    """Exclusive right to write one conversation, from the start of a turn until its reply is stored.

    Several threads call it, one after the other. The lease of a process that died expires.
    """

    def save(self, record: dict[str, Any]) -> bool:
        """Replace the conversation atomically and durably.

        Return False, without writing, if the lease is no longer valid: the conversation was deleted, or
        another process took the lease over.

        :raises StoreUnavailable: the back end failed
        """

    def close(self) -> None:
        """Free the conversation for its next turn. Idempotent; never raises."""


@runtime_checkable
class LoadingLease(Lease, Protocol):
    """Lease that also reads the conversation, because its store writes only what changed since."""

    def load(self) -> dict[str, Any] | None:
        """Return the record saved last; None if there is none.

        :raises StoreUnavailable: the back end failed
        """


class ConversationStore(Protocol):
    """Store that keeps one dict of JSON's types under each conversation id.

    All threads use it at once, and so do all processes if they share its back end. A method raises
    StoreUnavailable when the back end fails; the store stays usable, and the next call tries again.
    """

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        """Return the record saved last; None if there is none."""

    def hold(self, conversation_id: str) -> Lease:
        """Return a new lease; raises ConversationBusy while another one is held for this conversation."""

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation, if it exists, and invalidate its lease: a running reply is not stored."""

    def purge(self) -> int:
        """Delete expired conversations, unless the back end does so itself; return how many."""


def load_held(store: ConversationStore, conversation_id: str, lease: Lease) -> dict[str, Any] | None:
    """Load the record of a conversation whose lease is held, by the lease's own `load` if it has one."""
    return lease.load() if isinstance(lease, LoadingLease) else store.load(conversation_id)
