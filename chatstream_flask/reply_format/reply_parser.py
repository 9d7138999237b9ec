"""Parsers that turn the model's text into deltas; how the text is split does not change the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .deltas import Delta


class ReplyParser(Protocol):
    """Incremental parser of one reply."""

    @property
    def reads_special_tokens(self) -> bool:
        """Whether the text must contain the special tokens."""

    @property
    def kept_tokens(self) -> Mapping[int, str]:
        """Special tokens that the text must contain in any case, with their text."""

    @property
    def has_called(self) -> bool:
        """Whether the reply has a tool call so far."""

    def push(self, text: str) -> list[Delta]: ...

    def finish(self) -> list[Delta]:
        """Return the deltas that were held back."""


class TextReply:
    """The whole text is content.

    :param prompt: text to begin with
    """

    reads_special_tokens = False
    has_called = False
    kept_tokens: Mapping[int, str] = {}

    def __init__(self, prompt: str = "") -> None:
        self._prompt = prompt

    def push(self, text: str) -> list[Delta]:
        text, self._prompt = self._prompt + text, ""
        return [{"content": text}] if text else []

    def finish(self) -> list[Delta]:
        return self.push("")
