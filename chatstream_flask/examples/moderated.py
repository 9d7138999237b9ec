"""A moderated chat: what visitors may ask, what the model may say, and a count of both.

    flask --app chatstream_flask.examples.moderated run

    curl -N localhost:5000/chat_stream --json '{"user_input": "Write to ann@example.org, or call 555-0199."}'

The page is at http://127.0.0.1:5000/. A real site asks a model or a service in place of these word lists.
"""

import os
import re
from collections import Counter
from typing import Any

from flask import Flask

from chatstream_flask import ChatStream, ReplyContext, demo_model

FORBIDDEN = re.compile(r"\b(bomb|poison)s?\b", re.IGNORECASE)
PERSONAL = re.compile(r"[\w.+-]+@[\w-]+(?:\.\w+)+|\b\d{3}-\d{4}\b")  # addresses and telephone numbers


def create_app(**options: Any) -> Flask:
    """Return the app; `options` are arguments of ChatStream, without which the demo model answers."""
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    app.config["CHATSTREAM_COOKIE_SECURE"] = False  # only for plain http on your own machine
    chat_stream = ChatStream(**options) if options else ChatStream.from_pretrained(demo_model.PATH)
    chat_stream.append_apis(app, {"all": True})
    ended: Counter[str] = Counter()

    @chat_stream.before_reply
    def check_question(reply: ReplyContext) -> None:
        if FORBIDDEN.search(reply.user_input):
            reply.refuse("We do not talk about that here.")

    @chat_stream.on_text
    def check_sentence(reply: ReplyContext, text: str) -> str:
        if FORBIDDEN.search(text):
            reply.refuse("The reply was stopped.")
        return PERSONAL.sub("***", text)

    @chat_stream.after_reply
    def count(reply: ReplyContext) -> None:
        ended[reply.finish_reason] += 1

    @app.get("/moderation")
    def moderation() -> dict[str, int]:
        return dict(ended)

    return app
