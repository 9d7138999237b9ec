"""The chat API as a blueprint: the routes of the original ChatStream, and a few more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request

from ..chat.completion import Callback
from ..chat.service import ChatService
from ..config import check_callback, check_names
from ..errors import ChatStreamError, ConfigError
from ..monitoring.origin import assign_request_id
from ..openapi import describe
from ..webui import create_webui_blueprint
from . import conversations as listing
from .conversation_answers import conversation_of, generation_params_of, generation_params_to_set, prompt_of
from .feedback import OnFeedback, parse_feedback
from .load_answers import load_of, resource_usage


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the views."""

    callback: Callback | None = None  # for handle_chat_stream_request
    on_feedback_received: OnFeedback | None = None
    web_ui_params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.callback is not None:
            check_callback("callback", self.callback, "request", "message")
        if self.on_feedback_received is not None:
            check_callback("on_feedback_received", self.on_feedback_received, "feedback")


def create_chat_blueprint(
    chat_stream: ChatService, include: Iterable[str] | None = None, **options: Any
) -> Blueprint:
    """Return a blueprint with the chat API.

    The routes of a ChatStream with a name begin with `/<name>`, unless the blueprint is registered with
    another `url_prefix`.

    :param include: names from API_NAMES; None includes all
    :param options: `callback`, see `ChatStream.handle_chat_stream_request`; `on_feedback_received(feedback)`
        for set_feedback; `web_ui_params` for webui
    :raises ConfigError: a name or an option is unknown, or a callback cannot be called with its arguments
    """
    check_names("option", options, Options)
    instance = chat_stream.name
    blueprint = Blueprint(instance.blueprint("chatstream"), __name__, url_prefix=instance.url_prefix or None)
    blueprint.before_request(assign_request_id)
    blueprint.before_request(lambda: chat_stream.check_caller(request))
    blueprint.register_error_handler(ChatStreamError, chat_stream.refuse)
    for name in API_NAMES if include is None else _known(include):
        _VIEWS[name](blueprint, chat_stream, Options(**options))
    return blueprint


def append_apis(chat_stream: ChatService, app: Flask, opts: dict[str, Any]) -> None:
    """Register the chat API with an app; the options are those of `ChatStream.append_apis`."""
    ways = {"all", "include", "exclude"} & set(opts)
    if len(ways) != 1 or opts.get("all", True) is not True:
        raise ConfigError('append_apis needs one of {"all": True}, {"include": [...]} and {"exclude": [...]}')
    options = {name: value for name, value in opts.items() if name not in ways}
    if "exclude" in opts:
        excluded = _known(opts["exclude"])
        include = [name for name in API_NAMES if name not in excluded]
    else:
        include = _known(opts.get("include", API_NAMES))
    app.register_blueprint(create_chat_blueprint(chat_stream, include, **options))


def _known(names: Iterable[str]) -> list[str]:
    given = dict.fromkeys([names] if isinstance(names, str) else names)
    check_names("API", given, set(API_NAMES))
    return list(given)


def _chat_stream(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request, callback=options.callback, resumable=True)

    @blueprint.get("/chat_stream/<message_id>")
    def resume(message_id: str) -> Response:
        return chat_stream.handle_resume_request(request, message_id)

    @blueprint.post("/chat_stream/<message_id>/cancel")
    def cancel(message_id: str) -> Response:
        return chat_stream.handle_cancel_request(request, message_id)

    @blueprint.post("/chat_stream/<message_id>/answer_now")
    def answer_now(message_id: str) -> Response:
        return chat_stream.handle_answer_now_request(request, message_id)

    @blueprint.post("/chat_stream/<message_id>/steps/<step_id>")
    def answer_step(message_id: str, step_id: str) -> Response:
        return chat_stream.handle_answer_step_request(request, message_id, step_id)


def _clear_context(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.post("/clear_context")
    def clear_context() -> Response:
        return jsonify(chat_stream.handle_clear_context_request(request))


def _get_conversation(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/conversation")
    def get_conversation() -> Response:
        return _fresh(conversation_of(chat_stream, request))


def _conversations(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    own = chat_stream.own_conversations

    @blueprint.get("/conversations")
    def list_conversations() -> Response:
        return _fresh(listing.list_of(own, request))

    @blueprint.post("/conversations")
    def create_conversation() -> Response:
        response = _fresh(listing.create(own, request, chat_stream.state.settings.max_body_len))
        response.status_code = HTTPStatus.CREATED
        return response

    @blueprint.patch("/conversations/<conversation_id>")
    def change_conversation(conversation_id: str) -> Response:
        return _fresh(listing.change(own, request, conversation_id))

    @blueprint.delete("/conversations/<conversation_id>")
    def delete_conversation(conversation_id: str) -> Response:
        own.delete(request, conversation_id)
        return Response(status=HTTPStatus.NO_CONTENT)

    @blueprint.get("/conversations/<conversation_id>/export.json")
    def export_json(conversation_id: str) -> Response:
        exported = listing.as_json(*own.read(request, conversation_id))
        return _file(jsonify(exported), "conversation.json")

    @blueprint.get("/conversations/<conversation_id>/export.md")
    def export_markdown(conversation_id: str) -> Response:
        exported = listing.as_markdown(*own.read(request, conversation_id))
        return _file(Response(exported, mimetype="text/markdown"), "conversation.md")


def _get_prompt(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/get_prompt")
    def get_prompt() -> Response:
        return _fresh(prompt_of(chat_stream, request))


def _get_generation_params(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/get_generation_params")
    def get_generation_params() -> Response:
        return _fresh(generation_params_of(chat_stream, request))


def _set_generation_params(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.post("/set_generation_params")
    def set_generation_params() -> Response:
        chat_stream.set_generation_params(request, generation_params_to_set(request))
        return _fresh(generation_params_of(chat_stream, request))


def _set_feedback(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.post("/set_feedback")
    def set_feedback() -> Response:
        feedback = parse_feedback(request, chat_stream.get_chat_prompt(request))
        feedback["generation_params"] = chat_stream.get_generation_params(request)
        (options.on_feedback_received or _log)(feedback)
        return _fresh(
            {"success": True, "message": "success", "target_message_id": feedback["target_message_id"]}
        )

    def _log(feedback: dict[str, Any]) -> None:
        chat_stream.logger.info("feedback: %s %s", feedback["target_message_id"], feedback["is_like"])


def _get_load(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/get_load")
    def get_load() -> Response:
        return _fresh(load_of(chat_stream.engine))


def _get_resource_usage(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/get_resource_usage")
    def get_resource_usage() -> Response:
        return _fresh(resource_usage())


def _webui(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    blueprint.register_blueprint(
        create_webui_blueprint(options.web_ui_params, lambda: chat_stream.source.model_name)
    )


def _openapi(blueprint: Blueprint, chat_stream: ChatService, options: Options) -> None:
    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(describe(current_app))


def _file(response: Response, name: str) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response


def _fresh(data: dict[str, Any]) -> Response:
    response = jsonify(data)
    response.headers["Cache-Control"] = "no-store"
    return response


_VIEWS: dict[str, Callable[[Blueprint, Any, Options], None]] = {
    "chat_stream": _chat_stream,
    "clear_context": _clear_context,
    "get_conversation": _get_conversation,
    "conversations": _conversations,
    "get_prompt": _get_prompt,
    "set_generation_params": _set_generation_params,
    "get_generation_params": _get_generation_params,
    "set_feedback": _set_feedback,
    "get_load": _get_load,
    "get_resource_usage": _get_resource_usage,
    "openapi": _openapi,
    "webui": _webui,
}
API_NAMES = tuple(_VIEWS)
