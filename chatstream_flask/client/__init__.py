"""The client side, with the standard library only: read a reply's events, start and stop a server.

Shared by the capacity check, the load test, the benchmark, the kill test and the live tests.
"""

from __future__ import annotations

from .chunked import dechunk
from .events import Event, EventReader, parse_events, read_events, text_of
from .ports import free_port, wait_until_open
from .server_process import ServerFailed, ServerProcess

__all__ = [
    "Event",
    "EventReader",
    "ServerFailed",
    "ServerProcess",
    "dechunk",
    "free_port",
    "parse_events",
    "read_events",
    "text_of",
    "wait_until_open",
]
