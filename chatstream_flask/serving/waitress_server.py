"""waitress with its numbers computed from the engine's."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from flask import Flask
from waitress.server import BaseWSGIServer, create_server

from .drain import WRITE_OUT_SEC, Drain
from .limits import SWITCH_SEC, ServerLimits
from .waitress_channel import ChatChannel


def serve(app: Flask, host: str, port: int) -> None:
    """Blocks until SIGINT or SIGTERM, then until every reply in work has an outcome that its client got."""
    limits = ServerLimits.of(app)
    channels: dict[int, Any] = {}  # filled by waitress: its open connections
    try:
        for engine in limits.engines:
            engine.start()
        server = create_server(  # type: ignore[no-untyped-call]
            app,
            channels,
            host=host,
            port=port,
            threads=limits.num_threads,
            connection_limit=limits.max_connections,
            max_request_body_size=limits.max_body_len + 1,  # one more byte gets our own answer
            channel_request_lookahead=1,  # without it waitress cannot tell that a client has gone
            asyncore_use_poll=True,  # select() ends the process at file descriptor 1024
            clear_untrusted_proxy_headers=False,  # whether a proxy is trusted says the app's ProxyFix
        )
        for listener in [it for it in channels.values() if isinstance(it, BaseWSGIServer)]:
            listener.channel_class = partial(ChatChannel, limits.client_timeout_sec)  # type: ignore[assignment]
        sys.setswitchinterval(SWITCH_SEC)
        _end_on_signals(limits, partial(_wait_until_written, server.task_dispatcher, channels))
        server.run()
    finally:
        for engine in limits.engines:
            engine.stop()


def _end_on_signals(limits: ServerLimits, wait_until_written: Callable[[], None]) -> None:
    """The server goes on until the drain is over: it writes, and answers new requests with 503.

    A first signal begins the drain, a second one cuts it short, a third one interrupts the server.
    """

    def end_server() -> None:
        wait_until_written()
        os.kill(os.getpid(), signal.SIGINT)

    drain = Drain(limits.engines, limits.drain_sec, end_server)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        if drain.is_over or drain.num_asked >= 2:
            raise KeyboardInterrupt  # ends waitress' loop
        drain.ask()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _wait_until_written(dispatcher: Any, channels: dict[int, Any]) -> None:
    """What a thread has handed over is still in a connection's buffer, and only the main loop sends it."""
    deadline = time.monotonic() + WRITE_OUT_SEC
    while time.monotonic() < deadline:
        is_busy = dispatcher.queue or dispatcher.active_count
        if not is_busy and not any(getattr(c, "total_outbufs_len", 0) for c in list(channels.values())):
            return
        time.sleep(0.02)
