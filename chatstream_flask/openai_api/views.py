"""The routes of the OpenAI-compatible API, as a blueprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from ..chat.service import ChatService
from ..errors import ChatStreamError
from ..http.request_check import check_host, check_origin
from ..monitoring.origin import assign_request_id
from .completions import Completions
from .errors import ApiError, error_response, http_error_response
from .keys import check_key
from .models import Models

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
View = Callable[..., Response]


class RestOfPath(BaseConverter):
    """Matches the whole rest of a path, with whatever slashes and line breaks; "path" does not."""

    name = "chatstream_rest_of_path"
    regex = "(?s:.*)"
    part_isolating = False


def create_openai_blueprint(
    chat_stream: ChatService,
    *,
    model_names: Sequence[str] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    url_prefix: str | None = None,
) -> Blueprint:
    """Return a blueprint with `chat/completions`, `completions` and `models`.

    :param model_names: names by which clients may call the model; None is the name of its folder or its
        name on the hub
    :param chat_template_kwargs: arguments of the chat template, for example {"enable_thinking": False}
    :param url_prefix: None is `/v1`, and `/<name>/v1` for a ChatStream with a name
    :raises ConfigError: model_names is not a list of names
    """
    models = Models.of(model_names, chat_stream.source)
    completions = Completions(chat_stream, models, dict(chat_template_kwargs or {}))
    instance = chat_stream.name
    if url_prefix is None:
        url_prefix = f"{instance.url_prefix}/v1"
    blueprint = Blueprint(instance.blueprint("chatstream_openai"), __name__, url_prefix=url_prefix)

    @blueprint.record
    def add_converter(state: BlueprintSetupState) -> None:
        state.app.url_map.converters[RestOfPath.name] = RestOfPath

    def route(path: str, method: str, view: View) -> None:
        """Add a route for all methods, so that a wrong one also gets an error in OpenAI's format."""

        def checked(**parts: str) -> Response:
            if request.method not in (method, "HEAD" if method == "GET" else method):
                return _wrong_method(method)
            return view(**parts)

        blueprint.add_url_rule(path, endpoint=view.__name__, view_func=checked, methods=METHODS)

    def no_route(path: str = "") -> Response:
        raise ApiError(f"there is no {request.method} {request.path}", code="unknown_url", status=404)

    route("/chat/completions", "POST", completions.chat)
    route("/completions", "POST", completions.text)
    route("/models", "GET", models.list)
    route("/models/<path:name>", "GET", models.get)
    for path in ("", "/", f"/<{RestOfPath.name}:path>"):
        blueprint.add_url_rule(path, endpoint="no_route", view_func=no_route, methods=METHODS)

    blueprint.before_request(assign_request_id)

    @blueprint.before_request
    def check_caller() -> None:
        settings = completions.settings
        check_host(request, settings.allowed_hosts)
        if settings.api_keys is None:
            check_origin(request, settings.allowed_origins)
        elif request.method != "OPTIONS":  # preflight requests of browsers have no key
            # A page of another origin may have a key: no browser adds one by itself, as it adds cookies.
            check_key(request.headers.get("Authorization", ""), settings.api_keys)

    @blueprint.errorhandler(ChatStreamError)
    def refuse(error: ChatStreamError) -> Response:
        return chat_stream.refuse(error, error_response)

    @blueprint.errorhandler(RecursionError)
    def refuse_depth(error: RecursionError) -> Response:
        return error_response(ApiError("the body is nested too deeply"))

    @blueprint.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        return http_error_response(error)

    @blueprint.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        chat_stream.logger.exception("a request failed")
        return error_response(ChatStreamError("the server failed; its log says why"))

    return blueprint


def _wrong_method(allowed: str) -> Response:
    message = f"{request.path} takes {allowed}, not {request.method}"
    response = error_response(ApiError(message, code="method_not_allowed", status=405))
    response.headers["Allow"] = allowed
    return response
