"""WebApp: a Flask app under waitress in a thread, with the same settings for every app compared."""

from __future__ import annotations

from threading import Thread

from flask import Flask
from waitress.server import create_server

from chatstream_flask.http.server_check import SPARE_THREADS

END_SEC = 10


class WebApp:
    """A running waitress server."""

    def __init__(self, app: Flask, streams: int) -> None:
        self._server = create_server(  # type: ignore[no-untyped-call]
            app, host="127.0.0.1", port=0, threads=streams + SPARE_THREADS, channel_request_lookahead=1
        )
        self.port: int = self._server.effective_port
        self._thread = Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.trigger.pull_trigger(
            self._server.close
        )  # in the server's own loop, which uses its sockets
        self._thread.join(END_SEC)
        self._server.task_dispatcher.shutdown()
