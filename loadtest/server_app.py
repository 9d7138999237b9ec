"""The app under test; its settings are passed as JSON in LOADTEST_SERVER.

`python -m loadtest.server_app PORT` serves it under waitress, gunicorn takes `loadtest.server_app:app()`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.serving.app import create_app
from chatstream_flask.serving.waitress_server import serve

VARIABLE = "LOADTEST_SERVER"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of the app under test."""

    model: str = "mock"  # "mock", which echoes each message, or "demo"
    num_running: int = 16
    num_waiting: int = 32
    tokens_per_sec: float = 20.0  # speed of the mock's replies
    resume_sec: float = 1.0  # how long a reply keeps its slot after its visitor disconnected
    forget_sec: float = 86_400.0  # how long a conversation is stored
    folder: str = "instance"

    def to_environ(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def app() -> Flask:
    settings = ServerSettings(**json.loads(os.environ[VARIABLE]))
    options: dict[str, Any] = {
        "num_of_concurrent_executions": settings.num_running,
        "max_queue_size": settings.num_waiting,
        "too_many_request_as_http_error": True,
    }
    if settings.model == "mock":
        mock = {"type": "echo", "time_per_token_sec": 1 / settings.tokens_per_sec}
        options |= {"use_mock_response": True, "mock_params": mock}
        options |= {"max_new_tokens": 1000, "context_len": 1_000_000}
    else:
        model, tokenizer, device = load_model(str(DEMO_MODEL), "cpu")
        options |= {"model": model, "tokenizer": tokenizer, "device": device, "temperature": 0.0}
        options |= {"max_new_tokens": 64}
    config = {
        "CHATSTREAM_COOKIE_SECURE": False,
        "CHATSTREAM_METRICS": "open",
        "CHATSTREAM_RESUME_SEC": settings.resume_sec,
        "CHATSTREAM_STORE_DIR": str(Path(settings.folder) / "conversations"),
        "PERMANENT_SESSION_LIFETIME": timedelta(seconds=settings.forget_sec),
    }
    chat_stream = ChatStream(**options)
    chat_stream.start_queue_worker()
    return create_app(chat_stream, config)


if __name__ == "__main__":
    serve(app(), "127.0.0.1", int(sys.argv[1]))
