"""Parsers that turn the model's text into deltas; how the text is split does not change the message."""

from __future__ import annotations

import json
from typing import Protocol

from .deltas import CALLS, Delta, call_of, make_call


class ReplyParser(Protocol):
    """Incremental parser of one reply."""

    reads_special_tokens: bool  # whether the text must contain them

    @property
    def has_called(self) -> bool:
        """Whether the reply has a tool call so far."""

    def push(self, text: str) -> list[Delta]: ...

    def finish(self) -> list[Delta]:
        """Return the deltas that were held back."""


class TextReply:
    """The whole text is content."""

    reads_special_tokens = False
    has_called = False

    def push(self, text: str) -> list[Delta]:
        return [{"content": text}] if text else []

    def finish(self) -> list[Delta]:
        return []


class ArgumentsReply:
    """The whole text is the arguments of one function."""

    reads_special_tokens = False

    def __init__(self, name: str) -> None:
        self._name = name
        self.has_called = False

    def push(self, text: str) -> list[Delta]:
        if not text:
            return []
        if self.has_called:
            return [{CALLS: [{"index": 0, "function": {"arguments": text}}]}]
        self.has_called = True
        return [{CALLS: [make_call(0, self._name, text)]}]

    def finish(self) -> list[Delta]:
        return []


class CallReply:
    """The whole text is one call: {"name": ..., "arguments": {...}}."""

    reads_special_tokens = False

    def __init__(self) -> None:
        self._text = ""
        self.has_called = False

    def push(self, text: str) -> list[Delta]:
        self._text += text
        return []

    def finish(self) -> list[Delta]:
        """Return the call; one that was cut off is returned unchanged, as content."""
        try:
            call = call_of(json.loads(self._text))
        except (ValueError, RecursionError):
            call = None
        if call is None:
            return [{"content": self._text}] if self._text else []
        self.has_called = True
        return [{CALLS: [make_call(0, *call)]}]
