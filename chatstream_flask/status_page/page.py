"""The status page at `/chatstream/status`, its numbers at `/chatstream/status.json`."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    abort,
    jsonify,
    make_response,
    render_template,
    request,
    send_from_directory,
)

from ..chat.service import ChatService
from ..monitoring.status import PERCENTILES, WINDOW_SEC, live_status
from .admin_key import has_admin_key
from .words import WORDS

HERE = Path(__file__).parent
CONTENT_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def add_status_page(blueprint: Blueprint, chat_stream: ChatService) -> None:
    blueprint.template_folder = str(HERE / "templates")

    @blueprint.get("/chatstream/status")
    def status_page() -> Response:
        _check_caller(chat_stream)
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
        _check_caller(chat_stream)
        return make_response(jsonify(live_status(chat_stream.engine)), HEADERS)

    @blueprint.get("/chatstream/status/<any('status.js', 'status.css'):name>")
    def status_file(name: str) -> Response:
        _check_caller(chat_stream)
        response = send_from_directory(HERE / "static", name)
        response.content_type = CONTENT_TYPES[Path(name).suffix]
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _check_caller(chat_stream: ChatService) -> None:
    """404 where there is no page, 401 without the key."""
    settings = chat_stream.state.settings
    if settings.status == "off":
        abort(HTTPStatus.NOT_FOUND)
    if settings.status == "key" and not has_admin_key(request, settings.admin_key or ""):
        challenge = {"WWW-Authenticate": 'Basic realm="ChatStream status", charset="UTF-8"'}
        abort(
            Response("the admin key is needed\n", HTTPStatus.UNAUTHORIZED, challenge, mimetype="text/plain")
        )
