"""What every place that keeps conversations can do."""

from __future__ import annotations

from typing import Any, Protocol


class ConversationStore(Protocol):
    """Keeps one plain dict (JSON's types only) under each conversation id.

    Called by several threads, outside of any request; each method raises StoreUnavailable when it cannot do
    its work, and after `save` returned the conversation survives the end of the process.
    """

    def load(self, conversation_id: str) -> dict[str, Any] | None:
        """What was saved last; None if there is none."""

    def save(self, conversation_id: str, data: dict[str, Any]) -> None: ...

    def delete(self, conversation_id: str) -> None:
        """Nothing happens if there is none."""
