"""The chat page as a blueprint: the page itself at `/`, its files below `/chatstream_ui/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, make_response, render_template, send_from_directory

from ..monitoring.origin import assign_request_id
from .params import WebUIParams

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {  # what a system says about them differs, and browsers run no script of another type
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".LICENSE": "text/plain; charset=utf-8",
}
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # it may carry a token of the visitor's session
}
MAX_AGE_SEC = 365 * 24 * 3600


def create_webui_blueprint(web_ui_params: dict[str, Any] | None = None) -> Blueprint:
    """The page talks to the chat API that stands below the same address, whatever that is.

    :param web_ui_params: see `WebUIParams`
    :raises ConfigError: a name or a value in them is wrong
    """
    params = WebUIParams.of(web_ui_params)
    version = version_of(path for path in sorted(STATIC.rglob("*")) if path.is_file())
    blueprint = Blueprint("chatstream_webui", __name__, template_folder="templates")
    blueprint.before_request(assign_request_id)

    @blueprint.get("/")
    def index() -> Response:
        page = render_template(
            "chatstream_webui/index.html",
            title=params.first_title,
            params=json.dumps(params.to_dict(), ensure_ascii=False),
            files=f"chatstream_ui/{version}",  # seen from the page, so that any prefix will do
        )
        return make_response(page, PAGE_HEADERS)

    @blueprint.get("/chatstream_ui/<wanted_version>/<path:name>")
    def static_file(wanted_version: str, name: str) -> Response:
        """Browsers keep a file as long as its version stands in its address."""
        response = send_from_directory(STATIC, name)
        response.content_type = CONTENT_TYPES[Path(name).suffix]
        response.headers["X-Content-Type-Options"] = "nosniff"
        if wanted_version == version:
            response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SEC}, immutable"
        return response

    return blueprint


def version_of(files: Iterable[Path]) -> str:
    """Another one when any of them changes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
