"""HttpReply: what came over one connection and when; it is looked into after the round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"


@dataclass
class HttpReply:
    """The server must close the connection at the end."""

    asked_at: float
    received: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # time, bytes received so far

    def add(self, data: bytes) -> None:
        self.received += data
        self.arrivals.append((time.perf_counter(), len(self.received)))

    @property
    def body(self) -> bytes:
        """Raises RuntimeError for a reply that is not 200."""
        head, _, rest = bytes(self.received).partition(HEAD_END)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the server answered {bytes(self.received[:500])!r}")
        return dechunked(rest) if b"transfer-encoding: chunked" in head.lower() else rest

    @property
    def ended_at(self) -> float:
        return self.arrivals[-1][0]

    def time_when(self, is_so: Callable[[bytes], bool]) -> float:
        """When the body had come so far that it `is_so`."""
        for at, num_bytes in self.arrivals:
            head, _, rest = bytes(self.received[:num_bytes]).partition(HEAD_END)
            is_chunked = b"transfer-encoding: chunked" in head.lower()
            if is_so(dechunked(rest) if is_chunked else rest):
                return at
        raise RuntimeError(f"what was waited for never came: {bytes(self.received[-200:])!r}")


def dechunked(data: bytes) -> bytes:
    """What of a chunked body has come, the last chunk perhaps in part."""
    pieces, rest = [], data
    while rest:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            break
        size = int(line.partition(b";")[0], 16)
        pieces.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(pieces)
