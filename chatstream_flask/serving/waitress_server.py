"""waitress with its numbers computed from the engine's."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import waitress
from flask import Flask

from ..extension import AppState

SPARE_THREADS = 8  # for requests that are not chats
SPARE_CONNECTIONS = 500  # idle keep-alive connections, refused requests, other pages


def serve(app: Flask, host: str, port: int) -> None:
    """Blocks until SIGINT or SIGTERM; then every reply in work ends with an outcome."""
    state: AppState = app.extensions["chatstream"]
    engine = state.chat_stream.engine
    num_chats = engine.config.num_of_concurrent_executions + engine.config.max_queue_size
    server = waitress.create_server(
        app,
        host=host,
        port=port,
        threads=num_chats + SPARE_THREADS,  # each running or waiting reply holds one
        connection_limit=num_chats + SPARE_CONNECTIONS,
        max_request_body_size=state.settings.max_body_len + 1,  # one more byte gets our own answer
        channel_request_lookahead=1,  # without it waitress cannot tell that a client has gone
        asyncore_use_poll=True,  # select() ends the process at file descriptor 1024
    )
    sys.setswitchinterval(0.001)  # seconds; generation threads hold the GIL, others answer sooner
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        server.run()
    finally:
        engine.stop()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
