"""What a server holds before and after clients that misbehave, and how long a normal client waits."""

# mypy: allow-untyped-calls
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from chatstream_flask.engine.finisher import MAX_THREADS  # it starts them when it needs them

from .client import Visitor, beside, wait_until
from .server import Server

MAX_DELAY_SEC = 1.0  # that others may cause a normal client
PAUSE_SEC = 0.1  # between its questions


def held(server: Server) -> dict[str, int]:
    """Return the numbers of threads, open files, connections, and replies in a slot or in the queue."""
    state = server.state
    process = psutil.Process(state["pid"])
    return {
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "connections": len(process.net_connections("tcp")),
        "running": state["held"],
        "accepted": state["accepted"],
    }


def num_kept(server: Server) -> int:
    """Return the number of files of sessions and conversations."""
    return sum(path.is_file() for path in (server.folder / "first").iterdir())


@contextmanager
def nothing_is_left(server: Server) -> Iterator[None]:
    """Check that afterwards the server holds no more than before, and that no normal client waits long."""
    with Visitor(server.port) as visitor:
        alone_sec = max(answer_sec(visitor) for _ in range(5))
    before = held(server)
    seconds: list[float] = []

    def ask_again_and_again(is_over: threading.Event) -> None:
        with Visitor(server.port) as visitor:
            while True:
                seconds.append(answer_sec(visitor))
                if is_over.wait(PAUSE_SEC):
                    return

    with beside(ask_again_and_again):
        yield
    more: dict[str, int] = {}

    def is_left() -> dict[str, int]:
        nonlocal more
        allowed = before | {"threads": before["threads"] + MAX_THREADS}
        more = {name: num - before[name] for name, num in held(server).items() if num > allowed[name]}
        return more

    try:
        wait_until(lambda: not is_left())
    except AssertionError as error:
        raise AssertionError(f"the server holds more than before: {more}") from error
    server.check_idle()
    assert max(seconds) < alone_sec + MAX_DELAY_SEC


def answer_sec(visitor: Visitor) -> float:
    began = time.monotonic()
    assert visitor.ask("hello") == "hello"
    return time.monotonic() - began
