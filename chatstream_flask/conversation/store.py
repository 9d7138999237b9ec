"""What every place that keeps conversations can do."""

from __future__ import annotations

from typing import Any, Protocol


class Lease(Protocol):
    """The right to write one conversation, from the start of a turn until its reply is kept.

    Called by several threads, one after the other; a lease of a process that died ends by itself.
    """

    def save(self, record: dict[str, Any]) -> bool:
        """Replaces the conversation, at once or not at all; then it survives the end of this process.

        False, and nothing is written, if the lease has ended: the conversation was deleted meanwhile, or
        another process took it over. Raises StoreUnavailable.
        """

    def close(self) -> None:
        """The next turn may begin. Idempotent; never raises."""


class ConversationStore(Protocol):
    """Keeps one plain dict (JSON's types only) under each conversation id.

    Shared by all threads and, where the back end is, by all processes. A method raises StoreUnavailable when
    the back end does not do its work; nothing else of the store is lost by it, and the next call tries anew.
    """

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        """What was saved last; None if there is none."""

    def hold(self, conversation_id: str) -> Lease:
        """Raises ConversationBusy while another lease of this conversation is held."""

    def delete(self, conversation_id: str) -> None:
        """Forgets it, if there is one, and ends its lease: a reply in the making is not kept."""

    def purge(self) -> int:
        """Removes what is over its time to live, where the back end does not do so itself; how many."""
