"""Access to transformers' parser of replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def make_response_parser(template: dict[str, Any], prompt: str, tools: Sequence[dict[str, Any]]) -> Any:
    """Return transformers' streaming parser for a response template.

    :param prompt: its end may already start the reply, such as "<think>"
    """
    from transformers.utils.chat_parsing import ResponseParser

    return ResponseParser(template, prefix=prompt, tools=list(tools))
