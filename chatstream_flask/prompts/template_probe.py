"""A probe of a chat template: words in place of every text, which show what a prompt leaves out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

from .message_forms import Message

# Names that templates have for the reasoning of a message; they leave out that of earlier turns.
REASONING = ("reasoning_content", "reasoning", "thinking")


class Probe:
    """Messages of the same shape as others, and what must be found in a prompt rendered from them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._numbers = count()
        self._needed: list[tuple[str, str]] = []  # a word, and what it stands for
        self._spoilt: list[tuple[str, str]] = []  # a text that shows that a value was written in a wrong form
        self.messages = [self._message(i, message) for i, message in enumerate(messages)]

    def lacks(self, prompt: str) -> list[str]:
        """Return what the prompt lacks."""
        lacking = [name for word, name in self._needed if word not in prompt]
        return lacking + [name for text, name in self._spoilt if text in prompt]

    def _message(self, index: int, message: Message) -> Message:
        name = f"message {index + 1} ({message['role']})"
        shown = message | {key: self._word() for key in REASONING if message.get(key)}
        if content := message.get("content"):
            shown["content"] = self._content(content, f"the text of {name}")
        if calls := message.get("tool_calls"):
            shown["tool_calls"] = [self._call(call, f"a tool call of {name}") for call in calls]
        return shown

    def _content(self, content: Any, name: str) -> Any:
        if isinstance(content, str):
            return self._word(name)
        parts = [part | {"text": self._word(name)} if part.get("text") else part for part in content]
        for part in parts:  # a template that takes only strings may write the list itself
            if part.get("text"):
                self._spoilt += [(f"'text': '{part['text']}'", name), (f'"text": "{part["text"]}"', name)]
        return parts

    def _call(self, call: Message, name: str) -> Message:
        function = call["function"]
        arguments: Any = {}
        if function["arguments"] not in ({}, "{}", ""):
            key = self._word(name)
            arguments = {key: self._word(name)}
            self._spoilt += [(f"{{'{key}'", name), (f'{{\\"{key}', name)]
        if isinstance(function["arguments"], str):
            arguments = json.dumps(arguments)
        return call | {"function": function | {"name": self._word(name), "arguments": arguments}}

    def _word(self, name: str = "") -> str:
        word = f"qz{next(self._numbers)}zq"
        if name:
            self._needed.append((word, name))
        return word
