"""Feedback: a visitor likes or dislikes a reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Request

from ..chat.chat_request import load_object
from ..config import check_names, shown
from ..errors import BadRequest, ConfigError, NotFound
from ..http.request_body import read_body
from ..prompts import AbstractChatPrompt

MAX_FEEDBACK_LEN = 65_536  # bytes
NAMES = {"message_id", "is_like", "form_data"}

OnFeedback = Callable[[dict[str, Any]], None]


def parse_feedback(request: Request, prompt: AbstractChatPrompt) -> dict[str, Any]:
    """Return the feedback as the app's callback gets it.

    Its keys are `is_like` (None: taken back), `form_data`, `target_message_id`, `target_message`, and
    `prompt`: the contents of the conversation up to that message.

    :raises BadRequest: a field is unknown, or its value is not allowed
    :raises NotFound: the caller's conversation has no such message
    """
    data = load_object(read_body(request, MAX_FEEDBACK_LEN))
    try:
        check_names("field", data, NAMES)
    except ConfigError as error:
        raise BadRequest(str(error)) from error
    message_id, is_like = data.get("message_id"), data.get("is_like")
    if not isinstance(message_id, str):
        raise BadRequest(f"message_id must be the message_id of a reply, not {shown(message_id)}")
    if is_like is not None and not isinstance(is_like, bool):
        raise BadRequest(f"is_like must be true, false or null, not {shown(is_like)}")
    content = prompt.find_chat_content_by_message_id(message_id)
    if content is None:
        raise NotFound(f"your conversation has no message {shown(message_id)}")
    return {
        "is_like": is_like,
        "form_data": data.get("form_data"),
        "target_message_id": message_id,
        "target_message": content.message,
        "prompt": prompt.get_contents({"to_message_id": message_id}),
    }
