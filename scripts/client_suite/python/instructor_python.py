# /// script
# dependencies = ["instructor==1.17.0"]
# ///
"""instructor."""

from __future__ import annotations

import instructor
from cells import MESSAGES, MODEL, TOO_LONG, run
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field


class Person(BaseModel):
    """What answers and calls are made of; other fields would let a small model go on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def ask(mode: instructor.Mode) -> None:
    client = instructor.from_openai(OpenAI(), mode=mode)
    person = client.create(model=MODEL, messages=MESSAGES, response_model=Person)
    assert isinstance(person, Person)


def stream() -> None:
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode.TOOLS)
    *_, last = client.create_partial(model=MODEL, messages=MESSAGES, response_model=Person)
    assert last.name is not None and last.age is not None


def errors() -> None:
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode.TOOLS)
    messages = [{"role": "user", "content": TOO_LONG}]
    try:
        client.create(model=MODEL, messages=messages, response_model=Person, max_retries=1)
    except InstructorRetryException as error:
        assert "maximum context length" in str(error)
    else:
        raise AssertionError("a text that is too long was accepted")


def structured() -> None:
    ask(instructor.Mode.JSON_SCHEMA)
    ask(instructor.Mode.JSON)
    ask(instructor.Mode.RESPONSES_TOOLS)


run(stream=stream, tools=lambda: ask(instructor.Mode.TOOLS), structured=structured, errors=errors)
