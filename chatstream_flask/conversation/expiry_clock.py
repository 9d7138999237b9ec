"""Clock by which stored files expire: a jump of the system's clock makes none expire."""

from __future__ import annotations

import time
from collections.abc import Callable


class ExpiryClock:
    """Two readings of the time in seconds since 1970: the system's, and one that no jump can change.

    The second is the system's time at the start of this process plus the time that has passed since. What is
    written expires by the later reading, and has expired only by the earlier one, so a jump forward, a jump
    back and the correction of either lose nothing while the process runs.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def earliest(self) -> float:
        return min(self._wall(), self._offset + self._steady())

    def latest(self) -> float:
        return max(self._wall(), self._offset + self._steady())
