"""What the scripts of Python clients share: the server, the questions, and how results are told.

Each script gives `run` a function for each feature of its client. It returns if the feature works.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

BASE_URL = os.environ["OPENAI_BASE_URL"]  # these two are read by many clients themselves
API_KEY = os.environ["OPENAI_API_KEY"]
MODEL = os.environ["CLIENT_MODEL"]

QUESTION = "What is the capital of France?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
TOO_LONG = "a long text " * 4000
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
MAX_CHARS = 400


class Refused(Exception):
    """What the server refuses on purpose; the text is its own sentence."""


def check_answer(text: str | None) -> None:
    """Check the answer to QUESTION."""
    assert text and "Paris" in text, f"the answer is {text!r}"


def run(**cells: Callable[[], object]) -> None:
    """Call each function, and print a line of JSON that says how it went."""
    for name, check in cells.items():
        try:
            check()
            result = "ok"
        except Refused as refused:
            result = f"refused: {refused}"
        except Exception as error:  # whatever the client raises is the result
            result = f"failed: {type(error).__name__}: {error}"
        print(json.dumps({"cell": name, "result": result[:MAX_CHARS]}), flush=True)
