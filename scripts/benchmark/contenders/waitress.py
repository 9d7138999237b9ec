"""Contender: this project as a Flask app under waitress."""

from __future__ import annotations

import sys

from flask import Flask, Response, request

from chatstream_flask import ChatStream
from chatstream_flask.serving.limits import SWITCH_SEC

from ..bare_engine import make_chat_stream
from ..settings import Settings
from .web_app import WebApp


class WaitressContender:
    """A ChatStream app served by waitress."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served: tuple[ChatStream, WebApp] | None = None

    def prepare(self, streams: int, context_len: int) -> int:
        """Start the server; return its port."""
        self.close()
        sys.setswitchinterval(SWITCH_SEC)  # as `serve` does
        app = Flask(__name__)
        app.config.update(CHATSTREAM_STORE_DIR=self._settings.store_folder, CHATSTREAM_COOKIE_SECURE=False)
        chat_stream = make_chat_stream(self._settings, streams, context_len, app=app)
        chat_stream.start_queue_worker()

        @app.post("/chat_stream")
        def chat() -> Response:
            return chat_stream.handle_chat_stream_request(request)

        self._served = chat_stream, WebApp(app, streams)
        return self._served[1].port

    def close(self) -> None:
        if self._served is not None:
            chat_stream, web_app = self._served
            web_app.close()
            chat_stream.engine.stop()
        self._served = None
