"""The app of `serve`, for gunicorn."""

from __future__ import annotations

import os

from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.serving import app

from .servers import KEY, MAX_NEW_TOKENS


def create_app() -> Flask:
    """Return an app with the model of CLIENT_MODEL_FOLDER."""
    chat_stream = ChatStream.from_pretrained(os.environ["CLIENT_MODEL_FOLDER"], max_new_tokens=MAX_NEW_TOKENS)
    return app.create_app(chat_stream, {"CHATSTREAM_API_KEYS": [KEY]})
