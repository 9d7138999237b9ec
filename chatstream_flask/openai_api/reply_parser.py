"""The model's text -> deltas of a message: content, reasoning, tool calls. How it is cut changes nothing."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable
from typing import Any, Protocol

Delta = dict[str, Any]  # as in a chunk of the API

logger = logging.getLogger("chatstream_flask")

HERMES: dict[str, Any] = {  # of Qwen, Hermes and many others; for tokenizers that say nothing
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "content_args": {"allow_non_json": True},
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"content": "text"},
    },
}
CALLS = "tool_calls"
REASONING = ("reasoning_content", "reasoning", "thinking")  # names in use for the field


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
            call = _function(json.loads(self._text))
        except (ValueError, RecursionError):
            call = None
        if call is None:
            return [{"content": self._text}] if self._text else []
        self.has_called = True
        return [{CALLS: [make_call(0, *call)]}]


class TemplateReply:
    """Parsed by transformers, as a response template says; a call that cannot be parsed is content.

    Fed character by character, so that it cannot matter how the text came. A call is told when it is whole.
    """

    def __init__(self, template: dict[str, Any], prompt: str, tools: list[dict[str, Any]]) -> None:
        """:param prompt: its end may have begun the reply, as "<think>" does"""
        from transformers.utils.chat_parsing import ResponseParser

        self.reads_special_tokens = template is not HERMES
        self._parser = ResponseParser(template, prefix=prompt, tools=list(tools))
        self._num_calls = 0
        self._raw = ""  # of a call that is not whole
        self._space = ""  # at the end of the content, which is none of it before a call
        self._is_broken = False

    @property
    def has_called(self) -> bool:
        return self._num_calls > 0

    def push(self, text: str) -> list[Delta]:
        deltas: list[Delta] = []
        for char in text:
            if self._is_broken:
                deltas.append({"content": char})
                continue
            try:
                deltas += self._deltas(self._parser.feed(char))
            except ValueError as error:
                deltas += self._give_up(error)
        return merged(deltas)

    def finish(self) -> list[Delta]:
        if self._is_broken:
            return []
        try:
            deltas = self._deltas(self._parser.finalize()[1])
        except ValueError as error:
            return self._give_up(error)
        if self._space and not self._num_calls:
            deltas.append({"content": self._space})
        return merged(deltas)

    def _give_up(self, error: ValueError) -> list[Delta]:
        logger.warning("a reply does not follow the tokenizer's response template: %s", error)
        self._is_broken = True
        rest = self._space + self._raw
        return [{"content": rest}] if rest else []

    def _deltas(self, events: Iterable[dict[str, Any]]) -> list[Delta]:
        deltas: list[Delta] = []
        for event in events:
            name, kind = event["field"], event["type"]
            if name == CALLS:
                if kind == "region_chunk":
                    self._raw += event["text"]
                elif kind == "region_close":
                    deltas += self._call(event["value"])
            elif kind == "region_chunk":
                deltas += self._text(name, event["text"])
        return deltas

    def _call(self, value: Any) -> list[Delta]:
        raw, self._raw = self._raw, ""
        call = _function(value.get("function") if isinstance(value, dict) else None)
        if call is None:
            return self._text("content", raw)
        self._space = ""
        self._num_calls += 1
        return [{CALLS: [make_call(self._num_calls - 1, *call)]}]

    def _text(self, name: str, text: str) -> list[Delta]:
        if name in REASONING:
            return [{"reasoning_content": text}]
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return [{"content": shown}] if shown else []


def make_call(index: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def merged(deltas: list[Delta]) -> list[Delta]:
    """Neighbours that are text of the same field become one."""
    joined: list[Delta] = []
    for delta in deltas:
        (name, value), *_ = delta.items()
        if joined and isinstance(value, str) and name in joined[-1]:
            joined[-1] = {name: joined[-1][name] + value}
        else:
            joined.append(delta)
    return joined


def message_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """The whole message that the deltas tell."""
    content: dict[str, str] = {}
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for name, value in delta.items():
            if name != CALLS:
                content[name] = content.get(name, "") + value
                continue
            for call in value:
                if call["index"] in calls:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                else:
                    calls[call["index"]] = call | {"function": dict(call["function"])}
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls else "",
        "refusal": None,
        **content,
    }
    if calls:
        message[CALLS] = [{k: v for k, v in calls[i].items() if k != "index"} for i in sorted(calls)]
    return message


def _function(value: Any) -> tuple[str, str] | None:
    """Name and arguments of what a model wrote as a call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return value["name"], arguments
