"""The chat page at `/` and the widget at `/widget.js` as a blueprint, their files below `/chatstream_ui/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, redirect, render_template
from flask.blueprints import BlueprintSetupState

from ..http.pages import CONTENT_TYPES, page_headers, static_file
from ..monitoring.origin import assign_request_id
from .params import WebUIParams

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = page_headers(frame_ancestors="'self'", trusted_types="dompurify", images="'self' data:")
ICONS = (STATIC / "icons.svg").read_text(encoding="utf-8")
MAX_AGE_SEC = 365 * 24 * 3600


def create_webui_blueprint(
    web_ui_params: dict[str, Any] | None = None, model_name: Callable[[], str] | None = None
) -> Blueprint:
    """Return a blueprint with the chat page and the widget, which call the chat API below the page's address.

    :param web_ui_params: fields of `WebUIParams`
    :param model_name: returns the name of the model that the page shows; None: it shows none
    :raises ConfigError: a field is unknown, or its value is not allowed
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
            model=model_name() if model_name and params.show_model else "",
            params=json.dumps(params.to_dict(), ensure_ascii=False),
            files=f"chatstream_ui/{version}",  # relative, so that any url_prefix works
            icons=ICONS,
        )
        return make_response(page, PAGE_HEADERS)

    @blueprint.get("/widget.js")
    def widget() -> Response:
        """Return the script that a page of the host loads; its address stays, those of its files change."""
        options = params.to_dict() | {"needs_token": "csrf_token" in current_app.jinja_env.globals}
        script = (
            f'import {{ startWidget }} from "./chatstream_ui/{version}/widget.js";\n'
            f'startWidget({json.dumps(options)}, new URL(".", import.meta.url).href);\n'
        )
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response(script, headers=headers, content_type=CONTENT_TYPES[".js"])

    @blueprint.record
    def redirect_from_prefix(state: BlueprintSetupState) -> None:
        """Redirect `/prefix` to `/prefix/` without the host, which Flask would take from the request."""
        if prefix := (state.url_prefix or "").rstrip("/"):
            page = f"{prefix.rpartition('/')[2]}/"
            state.add_url_rule("", "redirect", lambda: redirect(page, HTTPStatus.PERMANENT_REDIRECT))

    @blueprint.get("/chatstream_ui/<wanted_version>/<path:name>")
    def file(wanted_version: str, name: str) -> Response:
        """Return a file; browsers may keep it for good, as its address changes with its content."""
        response = static_file(STATIC, name)
        if wanted_version == version:
            response.headers["Cache-Control"] = f"public, max-age={MAX_AGE_SEC}, immutable"
        return response

    return blueprint


def version_of(files: Iterable[Path]) -> str:
    """Return a hash that changes with the name or content of any file."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
