"""Apps of these tests' servers: chats as a user writes them, and routes that show the engine's state.

The environment variable LIVE_APP describes the app as JSON. `python -m live.live_apps PORT` serves it under
waitress; gunicorn takes `live.live_apps:create_app()`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response, current_app, jsonify, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from chatstream_flask import ChatStream
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.serving.waitress_server import serve
from chatstream_flask.views import create_chat_blueprint, create_operations_blueprint

from .faulty_runner import Faults, make_faulty

MAX_HOLD_SEC = 60.0


def create_app() -> Flask:
    wanted = json.loads(os.environ["LIVE_APP"])
    gate = Gate()
    options = wanted["options"]
    if not options.get("use_mock_response"):
        model, tokenizer, device = load_model(str(DEMO_MODEL), "cpu")
        model.register_forward_pre_hook(lambda module, args: gate.come_through())
        if template := options.pop("chat_template", None):
            tokenizer.chat_template = template
        options |= {"model": model, "tokenizer": tokenizer, "device": device}
    chat_stream = ChatStream(**options)
    faults = Faults()
    source: Any = chat_stream.source
    source.make_runner = make_faulty(source.make_runner, faults)
    folder = Path(wanted["folder"])
    first, second = (chat_app(name, chat_stream, folder, wanted["config"]) for name in ("first", "second"))
    add_test_routes(first, chat_stream, gate, faults)
    first.register_blueprint(create_operations_blueprint(chat_stream))
    first.register_blueprint(create_openai_blueprint(chat_stream))
    first.wsgi_app = DispatcherMiddleware(first.wsgi_app, {"/second": second})  # type: ignore[method-assign]
    return first


def chat_app(name: str, chat_stream: ChatStream, folder: Path, config: dict[str, Any]) -> Flask:
    app = Flask(name)
    app.config["CHATSTREAM_COOKIE_SECURE"] = False
    app.config["CHATSTREAM_STORE_DIR"] = str(folder / name)
    app.config.from_mapping(config)
    chat_stream.init_app(app)

    def note(request: Request, message: str) -> None:
        """Append a line per callback to a file, which can be read after the server has ended."""
        last = chat_stream.get_chat_prompt(request).get_contents()[-1:]
        line = {
            "client": request.headers.get("X-Client", ""),
            "app": current_app.name,
            "message": message,
            "at": time.monotonic(),  # the same clock in all processes of a machine
            "reply": last[0].message if last else None,
            "is_interrupted": last[0].is_interrupted if last else False,
        }
        with (folder / "outcomes").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request, callback=note)

    app.register_blueprint(create_chat_blueprint(chat_stream, callback=note), url_prefix="/api")
    return app


def add_test_routes(app: Flask, chat_stream: ChatStream, gate: Gate, faults: Faults) -> None:
    @app.get("/state")
    def state() -> Response:
        engine = chat_stream.engine
        return jsonify(
            running=engine.num_running,
            waiting=engine.num_waiting,
            accepted=engine.num_accepted,
            held=sum(len(worker.scheduler.running) for worker in engine.workers),
            stopped=gate.num_stopped,
            pid=os.getpid(),
        )

    @app.post("/check_idle")
    def check_idle() -> Response:
        chat_stream.engine.check_idle()
        return jsonify(repr(chat_stream.engine))

    @app.post("/hold")
    def hold() -> Response:
        """Stop the demo model before its next forward pass."""
        gate.close()
        return jsonify("held")

    @app.post("/faults")
    def set_faults() -> Response:
        faults.set(**request.get_json())
        return jsonify(repr(faults))

    @app.post("/release")
    def release() -> Response:
        gate.open()
        return jsonify("released")


class Gate:
    def __init__(self) -> None:
        self.num_stopped = 0  # threads
        self._is_open = threading.Event()
        self._is_open.set()

    def open(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self._is_open.clear()

    def come_through(self) -> None:
        self.num_stopped += 1
        self._is_open.wait(MAX_HOLD_SEC)
        self.num_stopped -= 1


if __name__ == "__main__":
    serve(create_app(), "127.0.0.1", int(sys.argv[1]))
