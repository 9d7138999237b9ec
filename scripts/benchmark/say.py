"""Progress, for whoever waits; the results have stdout for themselves."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
