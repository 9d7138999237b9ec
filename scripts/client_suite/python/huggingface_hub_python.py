# /// script
# dependencies = ["huggingface_hub==2.4.0"]
# ///
"""huggingface_hub: its InferenceClient."""

from __future__ import annotations

import json

from cells import API_KEY, BASE_URL, MESSAGES, MODEL, PERSON, TOO_LONG, check_answer, run
from huggingface_hub import InferenceClient
from huggingface_hub.errors import BadRequestError

client = InferenceClient(base_url=BASE_URL, api_key=API_KEY)
TOOL = {"type": "function", "function": {"name": "save", "description": "Save it.", "parameters": PERSON}}


def chat() -> None:
    check_answer(client.chat_completion(MESSAGES, model=MODEL).choices[0].message.content)


def stream() -> None:
    chunks = client.chat_completion(MESSAGES, model=MODEL, stream=True, temperature=0)
    check_answer("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


def tools() -> None:
    answer = client.chat_completion(MESSAGES, model=MODEL, tools=[TOOL], tool_choice="required")
    assert set(json.loads(answer.choices[0].message.tool_calls[0].function.arguments)) == {"name", "age"}


def structured() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat_completion(MESSAGES, model=MODEL, response_format=schema)
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}


def errors() -> None:
    try:
        client.chat_completion([{"role": "user", "content": TOO_LONG}], model=MODEL)
    except BadRequestError as error:
        assert "maximum context length" in str(error)
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, errors=errors)
