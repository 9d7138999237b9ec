"""The routes of the OpenAI-compatible API, and those that inference servers have beside it, as blueprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from ..chat.service import ChatService
from .blueprint import METHODS, ApiBlueprint
from .completions import Completions
from .errors import ApiError
from .models import Models
from .prompts import PromptEncoder
from .responses.views import Responses
from .server_routes import ServerRoutes


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
    """Return a blueprint with `chat/completions`, `completions`, `responses` and `models`.

    :param model_names: names by which clients may call the model; None is the name of its folder or its
        name on the hub
    :param chat_template_kwargs: arguments of the chat template, for example {"enable_thinking": False}
    :param url_prefix: None is `/v1`, and `/<name>/v1` for a ChatStream with a name
    :raises ConfigError: model_names is not a list of names
    """
    models = Models.of(model_names, chat_stream)
    encoder = PromptEncoder(chat_stream, dict(chat_template_kwargs or {}))
    completions = Completions(chat_stream, models, encoder)
    responses = Responses(chat_stream, models, completions)
    if url_prefix is None:
        url_prefix = f"{chat_stream.name.url_prefix}/v1"
    blueprint = ApiBlueprint(chat_stream, "chatstream_openai", url_prefix)

    @blueprint.record
    def add_converter(state: BlueprintSetupState) -> None:
        state.app.url_map.converters[RestOfPath.name] = RestOfPath

    def no_route(path: str = "") -> Response:
        raise ApiError(f"there is no {request.method} {request.path}", code="unknown_url", status=404)

    blueprint.add_view("/chat/completions", "POST", completions.chat)
    blueprint.add_view("/completions", "POST", completions.text)
    blueprint.add_view("/responses", "POST", responses.create_response)
    blueprint.add_view("/responses/<response_id>", "GET", responses.get_response, "DELETE")
    blueprint.add_view(
        "/responses/<response_id>", "DELETE", responses.delete_response, "GET", "POST", "PUT", "PATCH"
    )
    blueprint.add_view("/responses/<response_id>/cancel", "POST", responses.cancel_response)
    blueprint.add_view("/responses/<response_id>/input_items", "GET", responses.list_input_items)
    blueprint.add_url_rule("/responses/compact", endpoint="no_route", view_func=no_route, methods=["POST"])
    blueprint.add_view("/models", "GET", models.list)
    blueprint.add_view("/models/<path:name>", "GET", models.get)
    for path in ("", "/", f"/<{RestOfPath.name}:path>"):
        blueprint.add_url_rule(path, endpoint="no_route", view_func=no_route, methods=METHODS)
    return blueprint


def create_server_blueprint(
    chat_stream: ChatService,
    *,
    model_names: Sequence[str] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    url_prefix: str | None = None,
) -> Blueprint:
    """Return a blueprint with `health`, `ping`, `version`, `tokenize` and `detokenize`.

    vLLM and llama.cpp have these routes beside `/v1`, and their clients, routers and load generators ask for
    them. The app of the `serve` command has them; an app of your own may need these paths itself.

    :param model_names: as in create_openai_blueprint
    :param chat_template_kwargs: as in create_openai_blueprint
    :param url_prefix: None is the root, and `/<name>` for a ChatStream with a name
    :raises ConfigError: model_names is not a list of names
    """
    models = Models.of(model_names, chat_stream)
    routes = ServerRoutes(chat_stream, models, PromptEncoder(chat_stream, dict(chat_template_kwargs or {})))
    if url_prefix is None:
        url_prefix = chat_stream.name.url_prefix or None
    blueprint = ApiBlueprint(chat_stream, "chatstream_server", url_prefix, open_paths=("/health", "/ping"))
    blueprint.get("/health")(routes.health)
    blueprint.get("/ping")(routes.ping)
    blueprint.add_view("/version", "GET", routes.version)
    blueprint.add_view("/tokenize", "POST", routes.tokenize)
    blueprint.add_view("/detokenize", "POST", routes.detokenize)
    return blueprint
