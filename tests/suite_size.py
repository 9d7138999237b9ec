"""How much the suites of docs/reliability.md do: a little in all tests, all in `scripts/reliability`."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("CHATSTREAM_SUITE") == "full"


def size(short: int, full: int) -> int:
    return full if IS_FULL else short
