"""Built-in app of the `serve` command: the chat page and all APIs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from ..extension import ChatStream
from ..openai_api import create_openai_blueprint
from ..views import create_chat_blueprint, create_operations_blueprint


def create_app(chat_stream: ChatStream, config: Mapping[str, Any] | None = None) -> Flask:
    """Return an app with the chat page, the chat API, `/v1`, health checks and metrics.

    Its instance folder, which has the conversations, is ./instance. Environment variables FLASK_CHATSTREAM_*
    override `config`.

    :raises ConfigError: a setting is not allowed
    """
    app = Flask("chatstream_flask", instance_path=os.path.abspath("instance"), static_folder=None)
    app.config.from_mapping(config or {})
    app.config.from_prefixed_env()
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream))
    app.register_blueprint(create_openai_blueprint(chat_stream))
    app.register_blueprint(create_operations_blueprint(chat_stream))
    return app
