# /// script
# dependencies = ["langchain==1.*", "langchain-openai==1.7.4"]
# ///
"""LangChain, for Python."""

from __future__ import annotations

from typing import Literal

import openai
from cells import MODEL, PERSON, QUESTION, TOO_LONG, check_answer, run
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model=MODEL, temperature=0)
responses = ChatOpenAI(model=MODEL, temperature=0, use_responses_api=True)


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tell the weather of a city."""
    return "sunny"


def chat() -> None:
    check_answer(model.invoke(QUESTION).text)
    check_answer(responses.invoke(QUESTION).text)


def stream() -> None:
    check_answer("".join(chunk.text for chunk in model.stream(QUESTION)))
    check_answer("".join(chunk.text for chunk in responses.stream(QUESTION)))


def tools() -> None:
    for one in (model, responses):
        asked = one.bind_tools([weather], tool_choice="weather", strict=True).invoke(QUESTION)
        assert asked.tool_calls[0]["name"] == "weather"
        result = weather.invoke(asked.tool_calls[0])
        one.bind_tools([weather]).invoke([HumanMessage(QUESTION), asked, result])
    create_agent(model, [weather]).invoke({"messages": [HumanMessage(QUESTION)]}, {"recursion_limit": 12})


def structured() -> None:
    for one in (model, responses):
        for method in ("json_schema", "function_calling"):
            schema = {"title": "person", "description": "A person.", **PERSON}
            person = one.with_structured_output(schema, method=method).invoke(QUESTION)
            assert set(person) == {"name", "age"}


def resume() -> None:
    first = responses.invoke(QUESTION)
    again = responses.invoke("Again.", previous_response_id=first.response_metadata["id"])
    assert again.text


def errors() -> None:
    try:
        model.invoke(TOO_LONG)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
        assert type(error).__name__ == "OpenAIContextOverflowError"
    else:
        raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, resume=resume, errors=errors)
