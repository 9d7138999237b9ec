"""The model's text -> deltas of a message. How the text is cut changes nothing of the message."""

from __future__ import annotations

import json
from typing import Protocol

from .deltas import CALLS, Delta, call_of, make_call


class ReplyParser(Protocol):
    reads_special_tokens: bool  # they must be in the text

    @property
    def has_called(self) -> bool:
        """A tool call was met."""

    def push(self, text: str) -> list[Delta]: ...

    def finish(self) -> list[Delta]:
        """What was still held back."""


class TextReply:
    """All of it is content."""

    reads_special_tokens = False
    has_called = False

    def push(self, text: str) -> list[Delta]:
        return [{"content": text}] if text else []

    def finish(self) -> list[Delta]:
        return []


class ArgumentsReply:
    """All of it is the arguments of one function."""

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
    """All of it is one call: {"name": ..., "arguments": {...}}."""

    reads_special_tokens = False

    def __init__(self) -> None:
        self._text = ""
        self.has_called = False

    def push(self, text: str) -> list[Delta]:
        self._text += text
        return []

    def finish(self) -> list[Delta]:
        """A call that was cut off is given as it stands, as content."""
        try:
            call = call_of(json.loads(self._text))
        except (ValueError, RecursionError):
            call = None
        if call is None:
            return [{"content": self._text}] if self._text else []
        self.has_called = True
        return [{CALLS: [make_call(0, *call)]}]
