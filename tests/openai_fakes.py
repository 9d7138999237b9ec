"""Requests to the OpenAI-compatible API on a scripted model, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask_fakes import Chat, ScriptedRunner, running_chat
from werkzeug.test import TestResponse

from chatstream_flask.openai_api import create_openai_blueprint

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "１"}}\n</tool_call>'


@contextmanager
def running_api(
    folder: Path, runner: ScriptedRunner | None = None, config: dict[str, Any] | None = None, **kwargs: Any
) -> Iterator[Chat]:
    with running_chat(folder, runner, config, **kwargs) as chat:
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        yield chat


def ask(chat: Chat, path: str = "/v1/chat/completions", **fields: Any) -> TestResponse:
    kind = {"prompt": "Hello"} if path == "/v1/completions" else {"messages": HELLO}
    return chat.client().post(path, json={"model": "scripted"} | kind | fields)


def answer(chat: Chat, path: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    response = ask(chat, path, **fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def blocks_of(response: TestResponse) -> Iterator[str]:
    """Comments and the data of events, as they come."""
    assert response.status_code == 200, response.text
    assert response.content_type == "text/event-stream; charset=utf-8"
    for chunk in response.iter_encoded():
        for block in chunk.decode().split("\n\n")[:-1]:
            yield block.removeprefix("data: ")


def chunks_of(response: TestResponse) -> list[dict[str, Any]]:
    *blocks, last = [block for block in blocks_of(response) if not block.startswith(":")]
    assert last == "[DONE]"
    return [json.loads(block) for block in blocks]


def refusal(response: TestResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    error: dict[str, Any] = response.get_json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    return error


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
