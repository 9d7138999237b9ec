"""Answers from the site's own documents, with their sources below the reply; the index is SQLite's FTS5.

    DOCUMENTS=docs CHAT_MODEL=path/of/a/model flask --app chatstream_flask.examples.documents run

The page is at http://127.0.0.1:5000/. Without CHAT_MODEL the demo model answers, which is too small
to make use of what it reads.
"""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from flask import Flask, Response, send_from_directory

from chatstream_flask import ChatStream, ReplyContext, demo_model

BEST = "SELECT path, title, text FROM pages WHERE pages MATCH ? ORDER BY rank LIMIT 3"


def create_app(folder: str | None = None, **options: Any) -> Flask:
    """Return the app; `options` are arguments of ChatStream in place of a model."""
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    app.config["CHATSTREAM_COOKIE_SECURE"] = False  # only for plain http on your own machine
    documents = Path(folder or os.environ.get("DOCUMENTS", "docs")).resolve()
    database = Path(app.instance_path) / "documents.db"
    build_index(documents, database)
    model = os.environ.get("CHAT_MODEL", demo_model.PATH)
    chat_stream = ChatStream(**options) if options else ChatStream.from_pretrained(model)
    chat_stream.append_apis(app, {"all": True})

    @chat_stream.before_reply
    def look_up(reply: ReplyContext) -> None:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", reply.user_input))
        with closing(sqlite3.connect(database)) as connection:
            for path, title, text in connection.execute(BEST, [words]) if words else ():
                reply.add_source(title, text, url=f"/documents/{path}")
        reply.add_context("Answer the question from the texts above, and name them by number, as [1].")

    @app.get("/documents/<path:path>")
    def document(path: str) -> Response:
        return send_from_directory(documents, path, mimetype="text/plain")

    return app


def build_index(folder: Path, database: Path) -> None:
    """Index each section of the Markdown files below a folder anew."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS pages")
        connection.execute("CREATE VIRTUAL TABLE pages USING fts5(path UNINDEXED, title, text)")
        for path in sorted(folder.rglob("*.md")):
            for section in re.split(r"^#+ ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
                title, _, text = section.partition("\n")
                row = [path.relative_to(folder).as_posix(), title, text.strip()[:1500]]
                connection.execute("INSERT INTO pages VALUES (?, ?, ?)", row)
