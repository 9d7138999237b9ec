# /// script
# dependencies = ["pydantic-ai-slim[openai]==2.68.0"]
# ///
"""pydantic-ai."""

from __future__ import annotations

from cells import MODEL, QUESTION, TOO_LONG, check_answer, run
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

model = OpenAIChatModel(MODEL)
responses = OpenAIResponsesModel(MODEL)


class Person(BaseModel):
    """What answers and calls are made of; other fields would let a small model go on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def chat() -> None:
    for one in (model, responses):
        check_answer(Agent(one).run_sync(QUESTION).output)


def stream() -> None:
    for one in (model, responses):
        result = Agent(one).run_stream_sync(QUESTION)
        *_, text = result.stream_text()
        check_answer(text)


def tools() -> None:
    """Get a typed output in its own way: by a tool that must be called."""
    for one in (model, responses):
        agent = Agent(one, output_type=Person)
        agent.tool_plain(lambda city: "sunny", name="weather", description="The weather of a city.")
        assert isinstance(agent.run_sync(QUESTION).output, Person)


def structured() -> None:
    for one in (model, responses):
        assert isinstance(Agent(one, output_type=NativeOutput(Person)).run_sync(QUESTION).output, Person)
    assert isinstance(Agent(model, output_type=PromptedOutput(Person)).run_sync(QUESTION).output, Person)


def resume() -> None:
    agent = Agent(responses)
    first = agent.run_sync(QUESTION)
    assert agent.run_sync("Again.", message_history=first.all_messages()).output


def errors() -> None:
    try:
        Agent(model).run_sync(TOO_LONG)
    except ModelHTTPError as error:
        assert error.body["code"] == "context_length_exceeded"
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, resume=resume, errors=errors)
