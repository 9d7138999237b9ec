"""Chunked transfer coding, for clients that read a socket themselves."""

from __future__ import annotations


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """Return what has arrived of a chunked body, and whether that is all of it."""
    pieces, rest = list[bytes](), data
    while b"\r\n" in rest:
        size_line, _, rest = rest.partition(b"\r\n")
        size = int(size_line.partition(b";")[0], 16)
        if size == 0:
            return b"".join(pieces), True
        pieces.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(pieces), False
