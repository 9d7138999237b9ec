"""Tools told in words, in the system text, where the chat template has no place for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...prompts.message_forms import RESULT_TAGS, text_of
from .syntax import HERMES_FORM

Message = dict[str, Any]

INTRODUCTION = "You can call functions. Here they are, each as a JSON object:"
EXAMPLE = HERMES_FORM.write([("the name", {"the parameter": "its value"})])
HOW = f"""To call a function, write its name and arguments as a JSON object between tags:
{EXAMPLE}
Results are told between {" and ".join(RESULT_TAGS)}."""
NAMED = "Call {} now: reply with nothing but its arguments, as a JSON object."
REQUIRED = 'Call one of them now: reply with nothing but a JSON object like {"name": "...", "arguments": {}}.'


def tool_words(tools: Sequence[dict[str, Any]], forced: Sequence[str] = ()) -> str:
    """Return a text that lists tools and says how to call them.

    :param forced: names, of which the model must call one
    """
    listed = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
    return "\n".join([INTRODUCTION, *listed, "", _how(forced)])


def with_words(messages: Sequence[Message], words: str) -> list[Message]:
    """Return the messages with more words in their system text."""
    first, *rest = messages
    if first["role"] == "system":
        return [first | {"content": f"{text_of(first)}\n\n{words}".lstrip()}, *rest]
    return [{"role": "system", "content": words}, *messages]


def _how(forced: Sequence[str]) -> str:
    if len(forced) == 1:
        return NAMED.format(forced[0])
    return REQUIRED if forced else HOW
