"""Requests for the caller's list of conversations, and the answers to them."""

from __future__ import annotations

from typing import Any

from flask import Request

from ..chat.chat_request import load_object
from ..chat.own_conversations import ImportedMessage, OwnConversations
from ..config import check_names, shown
from ..conversation.conversation_index import (
    MAX_LIMIT,
    MAX_OFFSET,
    MAX_SEARCH_LEN,
    MAX_TITLE_LEN,
    ConversationInfo,
)
from ..errors import BadRequest, ConfigError
from ..http.request_body import read_body
from ..prompts import AbstractChatPrompt
from ..prompts.export import to_markdown, to_messages

MAX_BODY_LEN = 65_536  # bytes of a body without messages
# What exports have; sources and calls of functions are the app's to tell, so imports go without them.
MESSAGE_FIELDS = {"role", "content", "reasoning", "message_id", "is_interrupted", "sources", "steps"}
# `message_id` and `sources` are not imported: the one is the server's, the others are the word of the app
ROLES = {"user": True, "assistant": False}


def list_of(conversations: OwnConversations, request: Request) -> dict[str, Any]:
    """Return a part of the list, as `search`, `limit` and `offset` of the query say."""
    search = request.args.get("search", "").strip()
    if len(search) > MAX_SEARCH_LEN:
        raise BadRequest(f"search may have at most {MAX_SEARCH_LEN} characters")
    limit = _number(request, "limit", 100, 1, MAX_LIMIT)
    offset = _number(request, "offset", 0, 0, MAX_OFFSET)
    found = conversations.list(request, search, limit + 1, offset)
    return {"conversations": [entry_of(info) for info in found[:limit]], "has_more": len(found) > limit}


def entry_of(info: ConversationInfo) -> dict[str, Any]:
    """Return an entry of the list; times are in seconds since 1970."""
    return {
        "id": info.id,
        "title": info.title,
        "is_pinned": info.is_pinned,
        "created_at": round(info.created_at.timestamp(), 3),
        "updated_at": round(info.updated_at.timestamp(), 3),
    }


def create(conversations: OwnConversations, request: Request, max_body_len: int) -> dict[str, Any]:
    """Begin a conversation; `messages` are those of an export.

    :raises BadRequest: the body is not valid
    """
    data = _checked(load_object(read_body(request, max_body_len)), {"title", "messages"})
    title = _title(data["title"]) if "title" in data else ""
    return entry_of(conversations.create(request, title, _messages(data.get("messages", []))))


def change(conversations: OwnConversations, request: Request, conversation_id: str) -> dict[str, Any]:
    """Rename or pin a conversation.

    :raises BadRequest: the body is not valid
    """
    data = _checked(load_object(read_body(request, MAX_BODY_LEN)), {"title", "is_pinned"})
    title, is_pinned = data.get("title"), data.get("is_pinned")
    if title is None and is_pinned is None:
        raise BadRequest("title or is_pinned must be given")
    if is_pinned is not None and not isinstance(is_pinned, bool):
        raise BadRequest(f"is_pinned must be true or false, not {shown(is_pinned)}")
    checked_title = None if title is None else _title(title)
    return entry_of(conversations.change(request, conversation_id, checked_title, is_pinned))


def as_json(info: ConversationInfo, prompt: AbstractChatPrompt) -> dict[str, Any]:
    """Return a conversation as `create` takes it."""
    messages = {"messages": to_messages(prompt)}
    return {"title": info.title} | messages if info.title else messages


def as_markdown(info: ConversationInfo, prompt: AbstractChatPrompt) -> str:
    return to_markdown(prompt, info.title)


def _title(given: Any) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > MAX_TITLE_LEN:
        raise BadRequest(f"title must be a text of 1 to {MAX_TITLE_LEN} characters, not {shown(given)}")
    return " ".join(given.split())


def _messages(given: Any) -> list[ImportedMessage]:
    if not isinstance(given, list):
        raise BadRequest(f"messages must be a list, not {shown(given)}")
    messages = [_message(message, i) for i, message in enumerate(given)]
    if [message.is_user for message in messages] != [i % 2 == 0 for i in range(len(messages))]:
        raise BadRequest("the roles of messages must be user and assistant in turn, beginning with user")
    if messages and messages[-1].is_user:
        raise BadRequest("the last message must be the assistant's")
    return messages


def _message(given: Any, i: int) -> ImportedMessage:
    if not isinstance(given, dict):
        raise BadRequest(f"messages[{i}] must be an object, not {shown(given)}")
    data = _checked(given, MESSAGE_FIELDS)
    role, text, reasoning = data.get("role"), data.get("content"), data.get("reasoning")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"messages[{i}].role must be user or assistant, not {shown(role)}")
    if not isinstance(text, str):
        raise BadRequest(f"messages[{i}].content must be a string, not {shown(text)}")
    if reasoning is not None and not isinstance(reasoning, str):
        raise BadRequest(f"messages[{i}].reasoning must be a string, not {shown(reasoning)}")
    is_interrupted = data.get("is_interrupted", False)
    if not isinstance(is_interrupted, bool):
        raise BadRequest(f"messages[{i}].is_interrupted must be true or false, not {shown(is_interrupted)}")
    return ImportedMessage(ROLES[role], text, reasoning, is_interrupted)


def _checked(data: dict[str, Any], allowed: set[str]) -> dict[str, Any]:
    try:
        check_names("field", data, allowed)
    except ConfigError as error:
        raise BadRequest(str(error)) from error
    return data


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    given = request.args.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= 8 and low <= int(given) <= high):
        raise BadRequest(f"{name} must be a whole number from {low} to {high}, not {shown(given)}")
    return int(given)
