"""The app that `serve` runs when there is no other: a chat API and a page that says how to call it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response

from ..extension import ChatStream
from ..views import create_chat_blueprint

USAGE = """\
chatstream_flask is running. Talk to it:

  curl -N -b cookies -c cookies http://{host}/chat_stream \\
       -H 'Content-Type: application/json' -d '{{"user_input": "Hello!"}}'

Add -H 'Accept: text/event-stream' for events: the place in the queue, text, and how it ended.
POST http://{host}/clear_context starts a new conversation.
"""


def create_app(chat_stream: ChatStream, config: Mapping[str, Any] | None = None) -> Flask:
    """Keeps its conversations below ./instance, wherever the package is installed."""
    app = Flask("chatstream_flask", instance_path=os.path.abspath("instance"), static_folder=None)
    app.config.from_mapping(config or {})
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream))

    @app.get("/")
    def index() -> Response:
        from flask import request

        return Response(USAGE.format(host=request.host), content_type="text/plain; charset=utf-8")

    return app
