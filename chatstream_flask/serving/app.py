"""Built-in app of the `serve` command: the chat page and all APIs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response

from ..extension import ChatStream
from ..openai_api import create_openai_blueprint, create_server_blueprint
from ..views import create_operations_blueprint

FOR_OPERATORS = ("get_prompt", "get_resource_usage")  # they show the system text, and the machine


def create_app(
    chat_stream: ChatStream,
    config: Mapping[str, Any] | None = None,
    *,
    exclude: Sequence[str] = FOR_OPERATORS,
) -> Flask:
    """Return an app with the chat page, the chat API, `/v1`, health checks and metrics.

    Its instance folder, which has the conversations, is ./instance. Environment variables FLASK_CHATSTREAM_*
    override `config`.

    :param exclude: names from `views.API_NAMES` that it does not have

    :raises ConfigError: a setting is not allowed
    """
    app = configured_app(config)
    has_admin_key = app.config.get("CHATSTREAM_ADMIN_KEY") is not None
    app.config.setdefault("CHATSTREAM_METRICS", "key" if has_admin_key else "off")
    app.after_request(_stay_here)
    chat_stream.append_apis(app, {"exclude": exclude})
    app.register_blueprint(create_openai_blueprint(chat_stream))
    app.register_blueprint(create_server_blueprint(chat_stream))
    app.register_blueprint(create_operations_blueprint(chat_stream))
    return app


def configured_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the built-in app with its settings and its folder, before it gets a chat."""
    app = Flask("chatstream_flask", instance_path=os.path.abspath("instance"), static_folder=None)
    app.config.from_mapping(config or {})
    app.config.from_prefixed_env()
    return app


def _stay_here(response: Response) -> Response:
    """Take the host out of a redirect: in those of Flask it is whatever the client names."""
    target = urlsplit(response.location or "")
    if target.netloc:
        response.location = urlunsplit(("", "", f"/{target.path.lstrip('/')}", target.query, ""))
    return response
