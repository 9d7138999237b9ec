"""Launch: what a server is started with."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ..settings import Settings
from ..shape import BYTES


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a server is started with."""

    settings: Settings
    precision: str
    slots: int  # most replies at once
    context_len: int
    gguf: str | None = None  # file of the model, for a server or a precision that wants one
    python: str = sys.executable  # interpreter that has the server's packages

    @property
    def key_value_bytes(self) -> float:
        """The size of the keys and values of all slots together."""
        dtype = self.precision if self.precision in BYTES else "bfloat16"
        return self.settings.shape.key_value_bytes(self.slots * self.context_len, dtype)
