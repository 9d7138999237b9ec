"""waitress with its numbers computed from the engine's."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from flask import Flask
from waitress.server import create_server

from ..app_state import AppState
from ..engine.engine import Engine

SPARE_THREADS = 8  # for requests that are not chats
SPARE_CONNECTIONS = 500  # idle keep-alive connections, refused requests, other pages


def serve(app: Flask, host: str, port: int) -> None:
    """Blocks until SIGINT or SIGTERM; then every reply in work ends with an outcome that its client gets."""
    state: AppState = app.extensions["chatstream"]
    engine = state.chat_stream.engine
    num_chats = engine.config.num_of_concurrent_executions + engine.config.max_queue_size
    try:
        server = create_server(  # type: ignore[no-untyped-call]
            app,
            host=host,
            port=port,
            threads=num_chats + SPARE_THREADS,  # each running or waiting reply holds one
            connection_limit=num_chats + SPARE_CONNECTIONS,
            max_request_body_size=state.settings.max_body_len + 1,  # one more byte gets our own answer
            channel_request_lookahead=1,  # without it waitress cannot tell that a client has gone
            asyncore_use_poll=True,  # select() ends the process at file descriptor 1024
            clear_untrusted_proxy_headers=False,  # whether a proxy is trusted says the app's ProxyFix
        )
        sys.setswitchinterval(0.001)  # seconds; generation threads hold the GIL, others answer sooner
        _stop_on_signals(engine)
        server.run()
    finally:
        engine.stop()


def _stop_on_signals(engine: Engine) -> None:
    """The engine ends first, while the server still writes; a second signal interrupts the server at once.

    waitress alone would wait 5 s for the replies in work and then drop them.
    """

    def stop() -> None:
        engine.stop()
        os.kill(os.getpid(), signal.SIGINT)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)  # raises KeyboardInterrupt, which ends waitress
        threading.Thread(target=stop, name="chatstream-stop").start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
