"""Tool calls as public chat templates write them into histories are read again.

The templates are looked for in the folder `CHATSTREAM_TEMPLATES`, by default `../shared/templates` beside the
project.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from chatstream_flask.reply_format.deltas import CALLS, message_of
from chatstream_flask.reply_format.tools.call_parser import ToolCallParser
from chatstream_flask.reply_format.tools.syntax import find_tool_syntax

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CHATSTREAM_TEMPLATES", ROOT.parent / "shared" / "templates"))
TEMPLATES = sorted(FOLDER.glob("*.jinja"))
OTHER_WAYS = ("GigaChat3-10B", "functionary-medium-v3.2", "gpt-oss")  # read by no syntax here
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "A city."},
        "days": {"type": "integer", "description": "A number."},
    },
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell the weather.", "parameters": PARAMETERS},
}
ARGUMENTS = {"city": 'Par"is <b>\n</b> \\', "days": 3}


def written(template: str, arguments: Any) -> str | None:
    """Return what a template writes for a call; None if it refuses it or writes no calls."""
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    question = {"role": "user", "content": "How is it?"}
    try:
        conversations: Any = [[question], [question, {"role": "assistant", "content": "", CALLS: [call]}]]
        texts: Any = render_jinja_template(
            conversations, tools=[TOOL], chat_template=template, bos_token="", eos_token=""
        )
    except (TemplateError, TypeError, ValueError):
        return None
    (asked, called), _ = texts
    pairs = enumerate(zip(asked, called, strict=False))
    reply = called[next((i for i, (one, other) in pairs if one != other), len(asked)) :]
    return reply if "weather" in reply else None


def read(template: str, reply: str) -> list[tuple[str, Any]]:
    syntax = find_tool_syntax(template)
    starts = [reply.find(opener) for opener in [*syntax.openers, *(["{"] if syntax.bare else [])]]
    begin = min([start for start in starts if start >= 0], default=0)  # behind the name of the role
    parser = ToolCallParser(syntax, [TOOL], streams=False)
    calls = message_of([*parser.push(reply[begin:]), *parser.finish()]).get(CALLS, [])
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


@pytest.mark.skipif(not TEMPLATES, reason=f"there are no chat templates in {FOLDER}")
def test_calls_in_histories_of_public_templates_are_read_again() -> None:
    num_read = 0
    wrong: list[str] = []
    for path in TEMPLATES:
        template = path.read_text(encoding="utf-8")
        if CALLS not in template or any(name in path.name for name in OTHER_WAYS):
            continue
        # A template that takes arguments as an object or as text writes one of the two wrongly.
        replies = filter(None, (written(template, way) for way in (ARGUMENTS, json.dumps(ARGUMENTS))))
        found = [read(template, reply) == [("weather", ARGUMENTS)] for reply in replies]
        num_read += any(found)
        wrong += [path.name] if found and not any(found) else []
    assert wrong == []
    assert num_read > len(TEMPLATES) // 3
