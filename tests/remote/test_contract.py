"""The contract of a chat, whatever generates its replies; `scripts/engines` tries engines of other projects.

All have the same model, in float32: greedy replies are those of the model in this process.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from fronts import FRONTS, QUEUE, SLOTS, Front, local
from live.client import wait_until

from chatstream_flask.client import Event, read_events, text_of

KINDS = os.environ.get("CHATSTREAM_FRONTS", "local servers").split()
TIMEOUT_SEC = 120
LONG = {"temperature": 0}  # about 150 tokens
STORY = "Tell me a very long story."
QUESTION = "My name is Ann."


@pytest.fixture(scope="module", params=KINDS)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with FRONTS[request.param](tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Serve the same chat, with the model in this process."""
    with local(tmp_path_factory.mktemp("here")) as front:
        yield front


@pytest.fixture(autouse=True, scope="module")
def no_thread_is_left() -> None:
    """Leave the servers of this module their threads until its end."""


@pytest.fixture(autouse=True)
def engines_are_idle(front: Front) -> Iterator[None]:
    yield
    wait_until(lambda: front.num_running() == 0)


class Visitor:
    """A browser."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.session = front.session()

    def open(self, text: str, **fields: Any) -> requests.Response:
        return self.session.post(
            f"{self._front.url}/chat_stream",
            json={"user_input": text, **fields},
            headers={"Accept": "text/event-stream"},
            stream=True,
            timeout=TIMEOUT_SEC,
        )

    def say(self, text: str, **fields: Any) -> list[Event]:
        with self.open(text, **{"temperature": 0} | fields) as response:
            assert response.status_code == 200, response.text
            events = list(read_events(response.iter_content(None)))
        assert events[-1].name == "done", events
        return events

    def resume(self, message_id: str, num_chars: int) -> list[Event]:
        with self.session.get(
            f"{self._front.url}/chat_stream/{message_id}",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(num_chars)},
            stream=True,
            timeout=TIMEOUT_SEC,
        ) as response:
            assert response.status_code == 200, response.text
            return list(read_events(response.iter_content(None)))

    def cancel(self, message_id: str) -> None:
        url = f"{self._front.url}/chat_stream/{message_id}/cancel"
        assert self.session.post(url, timeout=TIMEOUT_SEC).status_code == 204

    @property
    def messages(self) -> list[dict[str, Any]]:
        answer = self.session.get(f"{self._front.url}/conversation", timeout=TIMEOUT_SEC)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["messages"])


def ask(front: Front, path: str = "chat/completions", **fields: Any) -> requests.Response:
    what: dict[str, Any] = {"messages": [{"role": "user", "content": "What can you do?"}]}
    if path == "completions":
        what = {"prompt": "Once upon a time"}
    body = {"temperature": 0, "max_tokens": 30} | what | fields
    with front.session() as session:
        return session.post(f"{front.url}/v1/{path}", json=body, timeout=TIMEOUT_SEC)


def choice(front: Front, path: str = "chat/completions", **fields: Any) -> dict[str, Any]:
    response = ask(front, path, **fields)
    assert response.status_code == 200, response.text
    answer = response.json()
    return {**answer["choices"][0], "num_tokens": answer["usage"]["completion_tokens"]}


def id_of(response: requests.Response) -> str:
    return response.headers["X-ChatStream-Last-Generated-Message-Id"]


# -- the page and its conversations ----------------------------------------------------------------------


def test_page_is_served(front: Front) -> None:
    page = front.session().get(f"{front.url}/", timeout=TIMEOUT_SEC)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_a_conversation_is_that_of_its_visitor_and_the_same_everywhere(front: Front, here: Front) -> None:
    talks = []
    for one in (front, here):
        visitor = Visitor(one)
        said = [text_of(visitor.say(text)) for text in (QUESTION, "What is my name?")]
        assert [message["text"] for message in visitor.messages[1::2]] == said
        assert Visitor(one).messages == []
        talks.append(said)
    assert talks[0] == talks[1]
    assert "Ann" in talks[0][1]


def test_a_reply_ends_when_its_visitor_cancels_it(front: Front) -> None:
    visitor = Visitor(front)
    with visitor.open(STORY, **LONG) as response:
        events = read_events(response.iter_content(None))
        begun = next(event for event in events if event.name == "text")
        visitor.cancel(id_of(response))
        *rest, last = events
    assert last.data["finish_reason"] == "cancelled"
    _, reply = visitor.messages
    assert reply["is_interrupted"]
    assert reply["text"] == begun.data["text"] + text_of(rest)


def test_a_reply_goes_on_while_its_visitor_is_away(front: Front) -> None:
    visitor = Visitor(front)
    with visitor.open(STORY, **LONG) as response:
        begun = next(event for event in read_events(response.iter_content(None)) if event.name == "text")
        message_id = id_of(response)
    rest = visitor.resume(message_id, len(begun.data["text"]))
    assert rest[-1].data["finish_reason"] == "stop"
    assert visitor.messages[-1]["text"] == begun.data["text"] + text_of(rest)


def test_reasoning_ends_at_its_limit_and_is_no_part_of_the_answer(front: Front, here: Front) -> None:
    replies = []
    for one in (front, here):
        visitor = Visitor(one)
        events = visitor.say(STORY, enable_thinking=True, max_reasoning_tokens=8)
        reasoning = "".join(event.data["text"] for event in events if event.name == "reasoning")
        assert reasoning
        assert visitor.messages[-1]["text"] == text_of(events)
        replies.append((reasoning, text_of(events), events[-1].data["usage"]["reasoning_tokens"]))
    assert replies[0] == replies[1]


# -- the OpenAI API --------------------------------------------------------------------------------------

FIELDS: list[dict[str, Any]] = [
    {},
    {"max_tokens": 4},
    {"stop": "name"},
    {"logprobs": True, "top_logprobs": 2},
    {"repetition_penalty": 1.3},
    {"frequency_penalty": 0.7, "presence_penalty": 0.4},
    {"logit_bias": {"17": 3}},
    {"n": 2},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_an_answer_is_the_same_everywhere(front: Front, here: Front, fields: dict[str, Any]) -> None:
    given, expected = choice(front, **fields), choice(here, **fields)
    for key in ("message", "finish_reason", "num_tokens"):
        assert given[key] == expected[key]
    if fields.get("logprobs"):
        pairs = [[entry["logprob"] for entry in one["logprobs"]["content"]] for one in (given, expected)]
        assert pairs[0] == pytest.approx(pairs[1], abs=1e-2)


def test_a_text_is_continued_beyond_the_end_token(front: Front, here: Front) -> None:
    fields = {"ignore_eos": True, "max_tokens": 40, "min_tokens": 0}
    given, expected = (choice(one, "completions", **fields) for one in (front, here))
    assert given == expected
    assert (given["finish_reason"], given["num_tokens"]) == ("length", 40)


def test_a_seed_makes_samples_repeatable(front: Front) -> None:
    fields: dict[str, Any] = {"temperature": 1, "seed": 5, "top_k": 20, "min_p": 0.01, "max_tokens": 20}
    assert choice(front, **fields)["message"] == choice(front, **fields)["message"]


def test_a_stream_has_the_answer(front: Front) -> None:
    expected = choice(front)
    response = ask(front, stream=True, stream_options={"include_usage": True})
    *lines, last = [line for line in response.text.splitlines() if line.startswith("data:")]
    assert last == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data:")) for line in lines]
    deltas = [one["delta"].get("content") or "" for chunk in chunks for one in chunk["choices"]]
    assert "".join(deltas) == expected["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == expected["num_tokens"]


def test_bad_words_are_refused_where_the_engine_has_none(front: Front, here: Front) -> None:
    assert ask(here, bad_words=["name"]).status_code == 200
    response = ask(front, bad_words=["name"])
    if response.status_code != 200:
        assert response.status_code == 400
        assert "an engine that is reached over HTTP" in response.json()["error"]["message"]


@pytest.mark.parametrize("thinks", [False, True])
def test_an_answer_has_its_format_also_after_reasoning(front: Front, thinks: bool) -> None:
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinks}, "thinking_token_budget": 8}
    messages = [{"role": "user", "content": STORY}]
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": {"enum": ["Ann", "Bob"]}}}
    given = choice(front, messages=messages, response_format=wanted, **fields)
    assert (given["finish_reason"], bool(given["message"].get("reasoning_content"))) == ("stop", thinks)
    assert given["message"]["content"] in ('"Ann"', '"Bob"')


def test_a_forced_call_has_the_arguments_of_its_function(front: Front) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "person", "parameters": schema}}
    wanted = {"type": "function", "function": {"name": "person"}}
    given = choice(front, tools=[tool], tool_choice=wanted, max_tokens=300)
    (call,) = given["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {}


def test_a_format_that_is_no_schema_is_refused_where_the_engine_has_none(front: Front) -> None:
    response = ask(front, structured_outputs={"regex": "[ab]{3}"})
    if front.has_engines:
        assert response.status_code == 400
        assert "can only be a JSON schema" in response.json()["error"]["message"]
    else:
        assert response.status_code == 200


# -- under load ------------------------------------------------------------------------------------------


def test_what_is_beyond_the_queue_is_refused_and_the_rest_is_answered(front: Front) -> None:
    num = 4 * (SLOTS + QUEUE)
    barrier = threading.Barrier(num)

    def send() -> requests.Response:
        barrier.wait()
        return ask(front, "completions", ignore_eos=True, max_tokens=150)

    with ThreadPoolExecutor(num) as pool:
        answers = list(pool.map(lambda _: send(), range(num)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert SLOTS + QUEUE <= num - len(refused) < num
    assert {answer.status_code for answer in refused} == {429}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    texts = {answer.json()["choices"][0]["text"] for answer in answers if answer.status_code == 200}
    assert len(texts) == 1


def test_engines_stop_when_a_client_leaves(front: Front) -> None:
    with ExitStack() as stack:
        session = stack.enter_context(front.session())
        body: Any = {"prompt": "Once", "ignore_eos": True, "max_tokens": 900, "stream": True}
        response = session.post(f"{front.url}/v1/completions", json=body, stream=True, timeout=TIMEOUT_SEC)
        next(response.iter_content(1))
        response.close()
    wait_until(lambda: front.num_running() == 0)


# -- operations ------------------------------------------------------------------------------------------


def test_metrics_and_readiness_tell_of_the_engines(front: Front) -> None:
    assert requests.get(f"{front.node}/health/ready", timeout=TIMEOUT_SEC).status_code == 200
    metrics = requests.get(f"{front.node}/metrics", timeout=TIMEOUT_SEC).text
    assert ("chatstream_engine_up{" in metrics) == front.has_engines
    assert ("chatstream_engine_failures_total{" in metrics) == front.has_engines
