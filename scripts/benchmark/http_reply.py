"""HttpReply: the bytes received over one connection, and when; parsed after the round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chatstream_flask.client import dechunk

HEAD_END = b"\r\n\r\n"


@dataclass
class HttpReply:
    """One response; the server must close the connection at its end."""

    asked_at: float
    received: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # time, bytes received so far

    def add(self, data: bytes) -> None:
        self.received += data
        self.arrivals.append((time.perf_counter(), len(self.received)))

    @property
    def body(self) -> bytes:
        """Return the decoded body.

        :raises RuntimeError: the status is not 200
        """
        head, _, rest = bytes(self.received).partition(HEAD_END)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the server answered {bytes(self.received[:500])!r}")
        return dechunk(rest)[0] if b"transfer-encoding: chunked" in head.lower() else rest

    @property
    def ended_at(self) -> float:
        return self.arrivals[-1][0]

    def time_when(self, is_so: Callable[[bytes], bool]) -> float:
        """Return the time at which the body received so far first satisfied `is_so`."""
        for at, num_bytes in self.arrivals:
            head, _, rest = bytes(self.received[:num_bytes]).partition(HEAD_END)
            is_chunked = b"transfer-encoding: chunked" in head.lower()
            if is_so(dechunk(rest)[0] if is_chunked else rest):
                return at
        raise RuntimeError(f"the expected data never arrived: {bytes(self.received[-200:])!r}")
