# /// script
# dependencies = ["openai-agents==0.24.0"]
# ///
"""openai-agents, with its default: responses."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled
from cells import MODEL, QUESTION, TOO_LONG, check_answer, run
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel, ConfigDict, Field

set_tracing_disabled(True)
loop = asyncio.new_event_loop()  # its client belongs to one
called: list[str] = []


class Person(BaseModel):
    """What answers and calls are made of; other fields would let a small model go on for ever."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


@function_tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tell the weather of a city."""
    called.append(city)
    return "sunny"


def ask(*arguments: Any, **options: Any) -> Any:
    return loop.run_until_complete(Runner.run(*arguments, **options))


def chat() -> None:
    check_answer(ask(Agent("a", model=MODEL), QUESTION).final_output)


def stream() -> None:
    async def texts() -> str:
        result = Runner.run_streamed(Agent("a", model=MODEL), QUESTION)
        return "".join(
            [
                event.data.delta
                async for event in result.stream_events()
                if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent)
            ]
        )

    check_answer(loop.run_until_complete(texts()))


def tools() -> None:
    settings = ModelSettings(tool_choice="required", temperature=0)
    agent = Agent("a", model=MODEL, tools=[weather], model_settings=settings)
    ask(agent, QUESTION, max_turns=5)
    assert called


def structured() -> None:
    agent = Agent("a", model=MODEL, output_type=Person)
    assert isinstance(ask(agent, QUESTION).final_output, Person)
    settings = ModelSettings(temperature=0)
    agent = Agent("a", model=MODEL, output_type=Person, tools=[weather], model_settings=settings)
    assert isinstance(ask(agent, QUESTION, max_turns=5).final_output, Person)


def resume() -> None:
    agent = Agent("a", model=MODEL)
    first = ask(agent, QUESTION)
    again = ask(agent, "Again.", previous_response_id=first.last_response_id)
    assert again.final_output
    again = ask(agent, [*first.to_input_list(), {"role": "user", "content": "Again."}])
    assert again.final_output


def errors() -> None:
    try:
        ask(Agent("a", model=MODEL), TOO_LONG)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, resume=resume, errors=errors)
