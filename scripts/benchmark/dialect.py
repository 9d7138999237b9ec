"""Dialect: the request and response format of a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chatstream_flask.client import parse_events

from .http_client import request_bytes
from .words import text_of


@dataclass(frozen=True)
class Dialect:
    """Path and fields of a request, and the parser of its response."""

    path: str
    prompt_field: str
    length_field: str
    text: Callable[[bytes], str]  # text of a body that may be incomplete
    others: dict[str, Any]

    def request(self, prompt: list[int], new_tokens: int, accept: str = "*/*", **more: Any) -> bytes:
        body = {self.prompt_field: text_of(prompt), self.length_field: new_tokens, **self.others, **more}
        return request_bytes(self.path, body, accept)


def plain_text(body: bytes) -> str:
    return body.decode(errors="ignore")


def completion_text(body: bytes) -> str:
    """Return the text of OpenAI's streamed completions."""
    told = [event.data for event in parse_events(body)]
    if wrong := next((event for event in told if "error" in event), None):
        raise RuntimeError(f"the server answered {wrong}")
    return "".join(choice["text"] for event in told for choice in event["choices"])


CHAT = Dialect("/chat_stream", "user_input", "max_new_tokens", plain_text, {})
COMPLETIONS = Dialect(
    "/v1/completions", "prompt", "max_tokens", completion_text, {"temperature": 0, "stream": True}
)
