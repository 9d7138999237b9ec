"""Server of the `serve` command: waitress, sized for the chats of an app."""

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
from .limits import SWITCH_SEC, ServerLimits, allow_connections, claim_stores
from .sweeps import Sweeps
from .waitress_channel import ChatChannel


def serve(app: Flask, host: str, port: int) -> None:
    """Serve an app until SIGINT or SIGTERM, and then until all accepted replies have ended and been sent.

    :raises ConfigError: the app has no ChatStream, or another process uses the folder of its conversations
    :raises OSError, ValueError: the address cannot be used
    """
    limits = ServerLimits.from_app(app)
    claim_stores(app)
    sweeps = Sweeps(limits.sweepers)
    channels: dict[int, Any] = {}  # open connections, which waitress adds
    try:
        for engine in limits.engines:
            engine.start()
        server = create_server(  # type: ignore[no-untyped-call]
            app,
            channels,
            host=host,
            port=port,
            threads=limits.num_threads,
            connection_limit=allow_connections(limits, limits.max_connections),
            max_request_body_size=limits.max_body_len + 1,  # longer bodies get our own response from the app
            channel_request_lookahead=1,  # required to notice that a client has disconnected
            asyncore_use_poll=True,  # select() fails at file descriptor 1024
            clear_untrusted_proxy_headers=False,  # the app's ProxyFix decides which proxies are trusted
        )
        for listener in [it for it in channels.values() if isinstance(it, BaseWSGIServer)]:
            listener.channel_class = partial(ChatChannel, limits.client_timeout_sec)  # type: ignore[assignment]
        sys.setswitchinterval(SWITCH_SEC)
        _end_on_signals(limits, partial(_wait_until_written, server.task_dispatcher, channels))
        sweeps.start()
        server.run()
    finally:
        sweeps.stop()
        for engine in limits.engines:
            engine.stop()


def _end_on_signals(limits: ServerLimits, wait_until_written: Callable[[], None]) -> None:
    """Drain on the first SIGINT or SIGTERM, end all replies on the second, and stop the server on the third.

    Until the drain is over the server continues to send replies, and responds to new requests with 503.
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
    """Wait until the main loop has sent what threads have put into the buffers of connections."""
    deadline = time.monotonic() + WRITE_OUT_SEC
    while time.monotonic() < deadline:
        is_busy = dispatcher.queue or dispatcher.active_count
        if not is_busy and not any(getattr(c, "total_outbufs_len", 0) for c in list(channels.values())):
            return
        time.sleep(0.02)
