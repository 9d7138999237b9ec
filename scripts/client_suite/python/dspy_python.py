# /// script
# dependencies = ["dspy==3.4.1"]
# ///
"""dspy."""

from __future__ import annotations

import asyncio

import dspy
from cells import API_KEY, BASE_URL, MODEL, QUESTION, TOO_LONG, check_answer, run
from dspy.streaming import StreamListener

lm = dspy.LM(
    f"openai/{MODEL}", api_base=BASE_URL, api_key=API_KEY, temperature=0, max_tokens=200, cache=False
)
dspy.configure(lm=lm)


class Answer(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def chat() -> None:
    check_answer(lm(QUESTION)[0])


def stream() -> None:
    async def texts() -> str:
        program = dspy.streamify(
            dspy.Predict(Answer), stream_listeners=[StreamListener("answer")], async_streaming=True
        )
        with dspy.context(adapter=dspy.JSONAdapter()):
            parts = [part async for part in program(question=QUESTION)]
        return "".join(part.chunk for part in parts if hasattr(part, "chunk"))

    assert asyncio.run(texts())


def tools() -> None:
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return "sunny"

    with dspy.context(adapter=dspy.JSONAdapter()):
        agent = dspy.ReAct(Answer, tools=[weather], max_iters=2)
        assert agent(question=QUESTION).answer is not None


def structured() -> None:
    with dspy.context(adapter=dspy.JSONAdapter()):
        assert dspy.Predict(Answer)(question=QUESTION).answer


def errors() -> None:
    try:
        lm(TOO_LONG)
    except dspy.ContextWindowExceededError:
        return
    raise AssertionError("a text that is too long was accepted")


run(chat=chat, stream=stream, tools=tools, structured=structured, errors=errors)
