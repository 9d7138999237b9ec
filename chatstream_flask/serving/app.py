"""The app that `serve` runs when there is no other: all APIs, the page, and what monitoring asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from ..extension import ChatStream
from ..openai_api import create_openai_blueprint
from ..views import create_chat_blueprint, create_operations_blueprint


def create_app(chat_stream: ChatStream, config: Mapping[str, Any] | None = None) -> Flask:
    """Keeps its conversations below ./instance, wherever the package is installed.

    FLASK_CHATSTREAM_* of the environment have the last word on its settings.
    """
    app = Flask("chatstream_flask", instance_path=os.path.abspath("instance"), static_folder=None)
    app.config.from_mapping(config or {})
    app.config.from_prefixed_env()
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream))
    app.register_blueprint(create_openai_blueprint(chat_stream))
    app.register_blueprint(create_operations_blueprint(chat_stream))
    return app
