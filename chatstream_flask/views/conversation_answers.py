"""Answers about the caller's conversation."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Request

from ..chat.service import ChatService
from ..chat.wire_format import rounded
from ..errors import BadRequest
from ..http.request_body import load_json, read_body
from ..prompts import ChatContent

MAX_PARAMS_LEN = 65_536  # bytes of a body with generation params
CHATSTREAM_NAMES = {"top_k_value": "top_k", "top_p_value": "top_p"}  # the original ChatStream's names


def conversation_of(chat_stream: ChatService, request: Request) -> dict[str, Any]:
    """Return the messages, without the examples of the prompt class, and the running reply.

    `id` is that of its entry in the caller's list, None before its first turn is stored.
    """
    # First the running reply: one that ends meanwhile is then in both parts of the answer, not in neither.
    running = chat_stream.get_running_reply(request)
    prompt = chat_stream.get_chat_prompt(request)
    messages = [_message(content) for content in prompt.get_contents()[prompt.num_initial :]]
    conversation = {"id": chat_stream.own_conversations.listed_id(request), "messages": messages}
    if running is None:
        return conversation | {"running": None}
    reply = {
        "message_id": running.message_id,
        "user_input": running.user_input,
        "num_kept": running.num_kept,
    }
    return conversation | {"running": reply}


def _message(content: ChatContent) -> dict[str, Any]:
    """Return a message; `reasoning`, `reasoning_s`, `sources` and `steps` are there if it has them."""
    message: dict[str, Any] = {
        "role": content.role.value,
        "text": content.message or "",
        "message_id": content.message_id,
        "is_interrupted": content.is_interrupted,
    }
    if content.reasoning is not None:
        message |= {"reasoning": content.reasoning, "reasoning_s": rounded(content.reasoning_sec)}
    if content.sources:
        message["sources"] = content.sources
    if content.steps:
        message["steps"] = content.steps
    return message


def prompt_of(chat_stream: ChatService, request: Request) -> dict[str, Any]:
    """Return the prompt as the model gets it, percent-encoded."""
    prompt = chat_stream.get_chat_prompt(request)
    if prompt.is_empty():
        return {"success": True, "message": "no prompt", "prompt": None}
    text = chat_stream.source.text_of(prompt)
    return {"success": True, "message": "success", "prompt": quote(text)}


def generation_params_of(chat_stream: ChatService, request: Request) -> dict[str, Any]:
    """Return the caller's settings, also under the original ChatStream's names, and the origin of each.

    `reasoning_settings` names those that change how the model reasons.
    """
    params = chat_stream.get_generation_params(request)
    aliases = {alias: params[name] for alias, name in CHATSTREAM_NAMES.items()}
    return {
        "success": True,
        "message": "success",
        "generation_params": params | aliases,
        "origins": chat_stream.get_generation_param_origins(request),
        "reasoning_settings": list(chat_stream.source.reply_format.reasoning_settings),
    }


def generation_params_to_set(request: Request) -> dict[str, Any] | None:
    """Return the settings in the body; None, for the body `null`, restores the constructor's.

    :raises BadRequest: the body is something else
    """
    given: dict[str, Any] | None = load_json(read_body(request, MAX_PARAMS_LEN), "a JSON object or null")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRequest(f"the body must be a JSON object or null, not {type(given).__name__}")
    return {CHATSTREAM_NAMES.get(name, name): value for name, value in given.items()}
