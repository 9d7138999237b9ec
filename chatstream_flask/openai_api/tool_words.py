"""Tools told in words, in the system text, where the chat template has no place for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..prompts.message_forms import RESULT_TAGS, text_of
from ..reply_format.tools.syntax import HERMES_FORM
from .tools import ToolUse

Message = dict[str, Any]

INTRODUCTION = "You can call functions. Here they are, each as a JSON object:"
EXAMPLE = HERMES_FORM.write([("the name", {"the parameter": "its value"})])
HOW = f"""To call a function, write its name and arguments as a JSON object between tags:
{EXAMPLE}
Results are told between {" and ".join(RESULT_TAGS)}."""
NAMED = "Call {} now: reply with nothing but its arguments, as a JSON object."
REQUIRED = 'Call one of them now: reply with nothing but a JSON object like {"name": "...", "arguments": {}}.'


def with_tools_in_words(messages: Sequence[Message], use: ToolUse) -> list[Message]:
    """Return the messages with a system text that lists the tools and says how to call them."""
    listed = [json.dumps(tool["function"], ensure_ascii=False) for tool in use.tools]
    words = "\n".join([INTRODUCTION, *listed, "", _how(use)])
    first, *rest = messages
    if first["role"] == "system":
        return [first | {"content": f"{text_of(first)}\n\n{words}".lstrip()}, *rest]
    return [{"role": "system", "content": words}, *messages]


def _how(use: ToolUse) -> str:
    if len(use.forced) == 1:
        return NAMED.format(use.forced[0])
    return REQUIRED if use.forced else HOW
