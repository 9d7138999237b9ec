"""The status page at `/chatstream/status`, and its data at `/chatstream/status.json`."""

from __future__ import annotations

from pathlib import Path

from flask import (
    Blueprint,
    Response,
    jsonify,
    make_response,
    render_template,
    request,
)

from ..chat.service import ChatService
from ..http.pages import page_headers, static_file
from ..monitoring.status import PERCENTILES, WINDOW_SEC, live_status
from .admin_key import OperatorAccess
from .words import WORDS

HERE = Path(__file__).parent
HEADERS = page_headers(frame_ancestors="'none'")


def add_status_page(blueprint: Blueprint, chat_stream: ChatService, access: OperatorAccess) -> None:
    """Add the routes of the status page to a blueprint."""
    blueprint.template_folder = str(HERE / "templates")

    @blueprint.get("/chatstream/status")
    def status_page() -> Response:
        access.require(chat_stream.state.settings.status)
        language = request.accept_languages.best_match(WORDS) or "en"
        page = render_template(
            "chatstream_status/status.html",
            language=language,
            words=WORDS[language],
            percentiles=PERCENTILES,
            window_min=WINDOW_SEC // 60,
        )
        return make_response(page, HEADERS | {"Vary": "Accept-Language"})

    @blueprint.get("/chatstream/status.json")
    def status_json() -> Response:
        access.require(chat_stream.state.settings.status)
        return make_response(jsonify(live_status(chat_stream.engine)), HEADERS)

    @blueprint.get("/chatstream/status/<any('status.js', 'status.css'):name>")
    def status_file(name: str) -> Response:
        access.require(chat_stream.state.settings.status)
        return static_file(HERE / "static", name)
