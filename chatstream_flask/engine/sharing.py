"""What an engine shares with those of other servers."""

from __future__ import annotations

from typing import Protocol


class Sharing(Protocol):
    """Keeps an engine in touch with those of other servers, from its start to its stop."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Leave the others; called when all requests have ended. Idempotent."""
