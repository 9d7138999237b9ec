# /// script
# dependencies = ["openai==3.57.0"]
# ///
"""openai: OpenAI's package for Python."""

from __future__ import annotations

import openai
from cells import MESSAGES, MODEL, QUESTION, TOO_LONG, check_answer, run
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

client = OpenAI()


class Person(BaseModel):
    """What answers and calls are made of; other fields would let a small model go on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    check_answer(answer.choices[0].message.content)
    check_answer(client.responses.create(model=MODEL, input=QUESTION).output_text)


def stream() -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as events:
        check_answer(events.get_final_completion().choices[0].message.content)
    with client.responses.stream(model=MODEL, input=QUESTION) as events:
        check_answer(events.get_final_response().output_text)


def tools() -> None:
    """Parse a call and return its result, with chat completions and with responses."""
    tool = openai.pydantic_function_tool(Person, name="save")
    asked = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, tools=[tool], tool_choice="required", temperature=0
    )
    message = asked.choices[0].message
    call = message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, Person)
    result = {"role": "tool", "tool_call_id": call.id, "content": "saved"}
    after = client.chat.completions.create(
        model=MODEL, messages=[*MESSAGES, message.model_dump(exclude_none=True), result], tools=[tool]
    )
    assert after.choices[0].finish_reason in ("stop", "tool_calls", "length")
    flat = {"type": "function", **tool["function"]}
    first = client.responses.create(model=MODEL, input=QUESTION, tools=[flat], tool_choice="required")
    call = first.output[0]
    Person.model_validate_json(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "saved"}
    client.responses.create(model=MODEL, input=[output], previous_response_id=first.id, tools=[flat])


def structured() -> None:
    """Parse answers in a format, also where tools could be called, which a model may do instead."""
    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    tool = openai.pydantic_function_tool(Person, name="save")
    both = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Person, tools=[tool], temperature=0
    )
    message = both.choices[0].message
    assert message.parsed or message.tool_calls
    parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=Person)
    assert isinstance(parsed.output_parsed, Person)


def resume() -> None:
    """Read on where a stream broke off, and follow that response."""
    events = client.responses.create(model=MODEL, input=QUESTION, background=True, stream=True)
    first = [next(events) for _ in range(3)]
    events.close()
    response_id = first[0].response.id
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=2))
    assert [event.sequence_number for event in rest] == list(range(3, 3 + len(rest)))
    check_answer(rest[-1].response.output_text)
    following = client.responses.create(model=MODEL, input="Again.", previous_response_id=response_id)
    assert following.output_text and following.previous_response_id == response_id


def errors() -> None:
    try:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TOO_LONG}])
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded" and error.param == "messages"
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, resume=resume, errors=errors)
