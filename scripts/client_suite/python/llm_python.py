# /// script
# dependencies = ["llm==0.36"]
# ///
"""llm, with a model of its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

os.environ["LLM_USER_PATH"] = tempfile.mkdtemp()

import llm
from cells import API_KEY, BASE_URL, MODEL, PERSON, QUESTION, TOO_LONG, check_answer, run

Path(os.environ["LLM_USER_PATH"], "extra-openai-models.yaml").write_text(
    json.dumps(
        [
            {
                "model_id": "ours",
                "model_name": MODEL,
                "api_base": BASE_URL,
                "api_key_name": "ours",
                "supports_schema": True,
                "supports_tools": True,
            }
        ]
    )
)
Path(os.environ["LLM_USER_PATH"], "keys.json").write_text(json.dumps({"ours": API_KEY}))
model = llm.get_model("ours")


def chat() -> None:
    check_answer(model.prompt(QUESTION, stream=False).text())
    conversation = model.conversation()
    check_answer(conversation.prompt(QUESTION, stream=False).text())
    assert conversation.prompt("Again.", stream=False).text()


def stream() -> None:
    check_answer("".join(model.prompt(QUESTION, stream=True)))


def tools() -> None:
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return "sunny"

    conversation = model.conversation(tools=[weather], chain_limit=4)
    assert conversation.chain(QUESTION).text() is not None


def structured() -> None:
    assert set(json.loads(model.prompt(QUESTION, schema=PERSON).text())) == {"name", "age"}


def errors() -> None:
    try:
        model.prompt(TOO_LONG, stream=False).text()
    except Exception as error:
        assert "maximum context length" in str(error), error
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, errors=errors)
