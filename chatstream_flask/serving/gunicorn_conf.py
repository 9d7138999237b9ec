"""gunicorn's settings: `gunicorn -c python:chatstream_flask.serving.gunicorn_conf app:app`.

ChatWorker takes threads and connections from the app's ChatStream. A conf of your own may begin with
`from chatstream_flask.serving.gunicorn_conf import *`.
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
graceful_timeout = int(MAX_DRAIN_SEC + 2 * WRITE_OUT_SEC)  # the worker ends after CHATSTREAM_DRAIN_SEC
keepalive = 75  # seconds; a front server must be the one that closes, and nginx does after 60
control_socket_disable = True  # two instances of one user would share its path


def on_starting(server: Any) -> None:
    try:
        check_gunicorn(server.cfg)
    except ConfigError as error:
        raise RuntimeError(error) from error  # gunicorn prints it without a traceback


def when_ready(server: Any) -> None:
    """A second SIGTERM to the master is as good as SIGINT: while it waits it knows no other haste."""
    num_told = 0

    def on_term(signum: int, frame: FrameType | None) -> None:
        nonlocal num_told
        num_told += 1
        server.signal(signal.SIGTERM if num_told == 1 else signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, on_term)
