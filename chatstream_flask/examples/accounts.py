"""Users who log in and have many named conversations, in SQLite or PostgreSQL; others chat anonymously.

    flask --app chatstream_flask.examples.accounts run

    say() { curl -N -b jar -c jar localhost:5000/$1 --json "$2"; }
    say chat_stream '{"user_input": "My name is Lucy."}'             # anonymous
    say signup '{"name": "lucy", "password": "correct horse"}'       # now it is hers, under this id:
    curl -b jar localhost:5000/conversations
    say conversations/ID/chat_stream '{"user_input": "What is my name?"}'

DATABASE_URL=postgresql+psycopg://user:password@host/name uses PostgreSQL. Set FLASK_SECRET_KEY, or each start
logs everybody out, and behind https FLASK_SESSION_COOKIE_SECURE=true. The login is in password_login.py.
"""

import os
import secrets
from functools import partial
from typing import Any, cast

from flask import Flask, Request, Response, abort, jsonify, request, session
from flask_login import current_user, login_required, user_logged_in
from sqlalchemy import create_engine

from chatstream_flask import ChatStream, SimpleSessionRequestHandler, demo_model
from chatstream_flask.chat.request_handler import SESSION_KEY
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.examples.password_login import add_login, field
from chatstream_flask.prompts.export import to_markdown, to_messages


class AccountsHandler(SimpleSessionRequestHandler):
    """Uses the conversation of the URL, for its owner only; without login, the one of the session."""

    def get_conversation_id(self, request: Request) -> str:
        store = cast(SQLStore, self.get_store())  # the one of CHATSTREAM_STORE
        wanted = (request.view_args or {}).get("conversation_id")
        if wanted is not None or current_user.is_authenticated:
            if not (wanted and store.is_owner(wanted, str(current_user.get_id()))):
                abort(404)  # also for another user's, so that nobody learns which ids exist
            return str(wanted)
        if SESSION_KEY in session and store.owner_of(session[SESSION_KEY]) is not None:
            del session[SESSION_KEY]  # an old copy of the cookie, from before the login
        return super().get_conversation_id(request)


def create_app(**options: Any) -> Flask:
    """Return the app; `options` are arguments of ChatStream, without which the demo model answers."""
    app = Flask(__name__)
    url = os.environ.get("DATABASE_URL", "sqlite:///accounts.db")  # in the current folder
    app.config.update(SECRET_KEY=secrets.token_hex(), SESSION_COOKIE_SAMESITE="Lax", CHATSTREAM_STORE=url)
    app.config.from_prefixed_env()  # FLASK_...
    make = ChatStream if options else partial(ChatStream.from_pretrained, demo_model.PATH)
    chat_stream = make(app=app, request_handler=AccountsHandler(), **options)
    store = cast(SQLStore, chat_stream.store(app))
    store.create_or_migrate()
    add_login(app, create_engine(url))

    @user_logged_in.connect_via(app)  # the anonymous conversation now belongs to the user
    def adopt(app: Flask, user: Any) -> None:
        if SESSION_KEY in session:
            store.adopt(session[SESSION_KEY], user.get_id())
            del session[SESSION_KEY]

    @app.post("/chat_stream")
    @app.post("/conversations/<conversation_id>/chat_stream")
    def chat(conversation_id: str | None = None) -> Response:
        return chat_stream.handle_chat_stream_request(request)

    @app.get("/conversations")
    @login_required
    def show_all() -> list[dict[str, str]]:
        return [{"id": found.id, "title": found.title} for found in store.list(current_user.get_id())]

    @app.post("/conversations")
    @login_required
    def create() -> dict[str, str]:
        return {"id": store.create(current_user.get_id(), field("title"))}

    @app.patch("/conversations/<conversation_id>")
    @login_required
    def rename(conversation_id: str) -> dict[str, bool]:
        if not store.rename(conversation_id, current_user.get_id(), field("title")):
            abort(404)
        return {"success": True}

    @app.delete("/conversations/<conversation_id>")
    def forget(conversation_id: str) -> dict[str, Any]:
        return chat_stream.handle_clear_context_request(request)

    @app.get("/conversations/<conversation_id>/export.<any(json, md):kind>")
    def export(conversation_id: str, kind: str) -> Response:
        prompt = chat_stream.get_chat_prompt(request)
        if kind == "json":
            return jsonify(messages=to_messages(prompt))
        return Response(to_markdown(prompt), content_type="text/markdown; charset=utf-8")

    return app
