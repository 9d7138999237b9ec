"""The chat API as a blueprint: POST /chat_stream and POST /clear_context."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from ..extension import ChatStream


def create_chat_blueprint(chat_stream: ChatStream) -> Blueprint:
    blueprint = Blueprint("chatstream", __name__)

    @blueprint.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    @blueprint.post("/clear_context")
    def clear_context() -> Response:
        return jsonify(chat_stream.handle_clear_context_request(request))

    return blueprint
