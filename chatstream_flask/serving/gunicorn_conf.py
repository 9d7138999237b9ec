"""Settings for gunicorn: `gunicorn -c python:chatstream_flask.serving.gunicorn_conf app:app`.

ChatWorker sets the numbers of threads and connections from the app's ChatStream. A config file of your own
can start with `from chatstream_flask.serving.gunicorn_conf import *`.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from ..errors import ConfigError
from ..http.server_check import check_gunicorn
from .drain import MAX_DRAIN_SEC, WRITE_OUT_SEC

workers = 1
worker_class = "chatstream_flask.serving.gunicorn_worker.ChatWorker"
graceful_timeout = int(MAX_DRAIN_SEC + 2 * WRITE_OUT_SEC)  # an upper bound; CHATSTREAM_DRAIN_SEC counts
keepalive = 75  # seconds; longer than nginx' 60, so that the front server is the one that closes connections
control_socket_disable = True  # two instances run by one user would use the same path


def on_starting(server: Any) -> None:
    """Refuse settings under which chats would fail."""
    try:
        check_gunicorn(server.cfg)
    except ConfigError as error:
        raise RuntimeError(error) from error  # gunicorn prints it without a traceback


def when_ready(server: Any) -> None:
    """Make the second SIGTERM to the master act like SIGINT.

    While the master waits for its worker it ignores SIGTERM, so there would be no way to cut the drain short.
    """
    num_signals = 0

    def on_term(signum: int, frame: FrameType | None) -> None:
        nonlocal num_signals
        num_signals += 1
        server.signal(signal.SIGTERM if num_signals == 1 else signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, on_term)
