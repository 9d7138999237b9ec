# /// script
# dependencies = ["litellm==1.110.2"]
# ///
"""litellm."""

from __future__ import annotations

import json

import litellm
from cells import API_KEY, BASE_URL, MESSAGES, MODEL, PERSON, QUESTION, TOO_LONG, check_answer, run

SERVER = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY}
TOOL = {"type": "function", "function": {"name": "save", "parameters": PERSON}}
litellm.suppress_debug_info = True


def chat() -> None:
    check_answer(litellm.completion(messages=MESSAGES, **SERVER).choices[0].message.content)
    check_answer(litellm.responses(input=QUESTION, **SERVER).output[0].content[0].text)


def stream() -> None:
    chunks = litellm.completion(messages=MESSAGES, stream=True, **SERVER)
    check_answer("".join(chunk.choices[0].delta.content or "" for chunk in chunks))


def tools() -> None:
    answer = litellm.completion(messages=MESSAGES, tools=[TOOL], tool_choice="required", **SERVER)
    call = answer.choices[0].message.tool_calls[0]
    assert set(json.loads(call.function.arguments)) == {"name", "age"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "saved"}
    litellm.completion(messages=[*MESSAGES, answer.choices[0].message, result], tools=[TOOL], **SERVER)


def structured() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = litellm.completion(messages=MESSAGES, response_format=schema, **SERVER)
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}


def resume() -> None:
    first = litellm.responses(input=QUESTION, **SERVER)
    again = litellm.responses(input="Again.", previous_response_id=first.id, **SERVER)
    assert again.output


def errors() -> None:
    try:
        litellm.completion(messages=[{"role": "user", "content": TOO_LONG}], **SERVER)
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, resume=resume, errors=errors)
