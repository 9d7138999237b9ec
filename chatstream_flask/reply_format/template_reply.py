"""Replies with reasoning and tool calls, which the parser of transformers finds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..inference.response_parser import make_response_parser
from ..prompts.template_probe import REASONING
from .deltas import CALLS, Delta, call_of, make_call, merged

logger = logging.getLogger("chatstream_flask")


class TemplateReply:
    """Parser that follows a response template; a call that cannot be parsed is content.

    It gets the text character by character, so that the split of the text does not matter. A call is
    returned when it is complete.
    """

    reads_special_tokens = True
    kept_tokens: Mapping[int, str] = {}

    def __init__(self, template: dict[str, Any], prompt: str, tools: list[dict[str, Any]]) -> None:
        """Start a parser.

        :param prompt: its end may have begun the reply, for example with "<think>"
        """
        self._parser = make_response_parser(template, prompt, tools)
        self._num_calls = 0
        self._raw = ""  # text of a call that is not complete
        self._space = ""  # white space at the end of the content; dropped before a call
        self._is_after_reasoning = False
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
            except Exception as error:  # caused by the model's text
                deltas += self._give_up(error)
        return merged(deltas)

    def finish(self) -> list[Delta]:
        if self._is_broken:
            return []
        try:
            deltas = self._deltas(self._parser.finalize()[1])
        except Exception as error:
            return self._give_up(error)
        if self._space and not self._num_calls:
            deltas.append({"content": self._space})
        return merged(deltas)

    def _give_up(self, error: Exception) -> list[Delta]:
        """Return the rest as content; the log gets only the error's type, as its text quotes the reply."""
        logger.warning("a reply does not follow its response template: %s", type(error).__name__)
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
        call = call_of(value.get("function") if isinstance(value, dict) else None)
        if call is None:
            return self._text("content", raw)
        self._space = ""
        self._num_calls += 1
        return [{CALLS: [make_call(self._num_calls - 1, *call)]}]

    def _text(self, name: str, text: str) -> list[Delta]:
        if name in REASONING:
            self._is_after_reasoning = True
            return [{"reasoning_content": text}]
        text = self._space + text
        if self._is_after_reasoning:
            text = text.lstrip()
            self._is_after_reasoning = not text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return [{"content": shown}] if shown else []
