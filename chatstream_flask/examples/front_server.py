"""An API behind a front server that knows the users and names the conversation in a header; no cookies.

    FRONT_SECRET=s3cret flask --app chatstream_flask.examples.front_server run

    curl -N localhost:5000/chat_stream -H 'X-Front-Secret: s3cret' -H 'X-Conversation-Key: user-7.holidays' \
         --json '{"user_input": "Hello!"}'

The front server must remove both headers from what its own clients send. Who has the secret can read every
conversation, so only the front server has it.
"""

import hmac
import os
import re
import secrets
from functools import partial
from typing import Any

from flask import Flask, Request, Response, request

from chatstream_flask import AbstractRequestHandler, ChatStream, demo_model
from chatstream_flask.errors import BadRequest, ChatStreamError
from chatstream_flask.prompts.export import to_messages

KEY = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class NotFromFrontServer(ChatStreamError):
    """The request lacks the secret of the front server."""

    status = 403
    code = "not_from_front_server"


class FrontServerHandler(AbstractRequestHandler):
    """Uses the conversation that the front server names."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def get_conversation_id(self, request: Request) -> str:
        given = request.headers.get("X-Front-Secret", "").encode()
        if not hmac.compare_digest(given, self._secret):  # in constant time
            raise NotFromFrontServer("only the front server may call this")
        key = request.headers.get("X-Conversation-Key", "")
        if not KEY.fullmatch(key):
            raise BadRequest("X-Conversation-Key must be 1 to 128 letters, digits and . : _ -")
        return f"front:{key}"


def create_app(secret: str | None = None, **options: Any) -> Flask:
    """Return the app; `options` are arguments of ChatStream, without which the demo model answers."""
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    app.config["CHATSTREAM_STORE"] = os.environ.get(
        "CHATSTREAM_STORE"
    )  # redis://... for more than one machine
    secret = secret or os.environ.get("FRONT_SECRET")
    if not secret:
        secret = secrets.token_urlsafe(32)
        print(f"FRONT_SECRET is not set; until the end of this run it is {secret}", flush=True)
    make = ChatStream if options else partial(ChatStream.from_pretrained, demo_model.PATH)
    chat_stream = make(
        app=app,
        request_handler=FrontServerHandler(secret),
        too_many_request_as_http_error=True,  # programs look at the status
        **options,
    )

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    @app.get("/conversation")
    def show() -> list[dict[str, Any]]:
        return to_messages(chat_stream.get_chat_prompt(request))

    @app.delete("/conversation")
    def forget() -> dict[str, Any]:
        return chat_stream.handle_clear_context_request(request)

    return app
