"""UpstreamStats: what is known of a server that generates in place of this process."""

from __future__ import annotations

from typing import Protocol


class UpstreamStats(Protocol):
    """State and counts of one server; any thread may read them."""

    url: str
    num_running: int  # replies
    num_requests: int
    num_failures: int
    num_tokens: int

    @property
    def is_up(self) -> bool:
        """Whether it gets requests."""
