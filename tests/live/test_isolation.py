"""Many clients at once with different settings: each reads exactly what it reads when it is alone."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from suite_size import IS_FULL, size

from .client import TIMEOUT_SEC, SocketChat, Visitor, beside
from .server import Server, start

pytestmark = pytest.mark.server

NUM_TURNS = 4
NUM_CONVERSATIONS = size(6, 250)
NUM_AT_ONCE = size(8, 32)
OPENINGS = ["My name is {}.", "Please remember the word {}.", "I live in {}.", "Say {} again and again."]
QUESTIONS = ["What is my name?", "What did I say?", "Count to ten.", "Tell me a story.", "Say it again."]
AGAIN = "Count to ten."
MORE: list[dict[str, Any]] = [{}, {"stop": ["e "]}, {"top_k": 5}]


@pytest.fixture(scope="module", params=["waitress", "gunicorn"] if IS_FULL else ["waitress"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"{request.param}-isolation")
    options: dict[str, Any] = {
        "num_of_generation_threads": 2,
        "num_of_concurrent_executions": 8,
        "max_queue_size": 100,
        "prompt_lookup_num_tokens": 8,
    }
    with start(request.param, folder, **options) as server:
        yield server


def canary(number: int) -> str:
    return f"Q{number:03}x"


def turns_of(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a client says and its settings.

    Every fourth is greedy and asks for the same again, so that tokens are drafted for it.
    """
    rng = random.Random(number)
    is_greedy = number % 4 == 0
    for turn in range(NUM_TURNS):
        opening, question = rng.choice(OPENINGS).format(canary(number)), rng.choice(QUESTIONS)
        text = opening if turn == 0 else AGAIN if is_greedy else question
        settings: dict[str, Any] = {
            "temperature": 0.0 if is_greedy else rng.choice([0.5, 1.0, 1.3]),
            "top_p": rng.choice([0.8, 1.0]),
            "seed": rng.randrange(1000),
            **rng.choice(MORE),
        }
        yield text, {**settings, "max_tokens": 40 if is_greedy else rng.randint(5, 40)}


def converse(server: Server, number: int) -> list[str]:
    """Return the replies to a client, over the chat or over the OpenAI API."""
    if number % 2:
        return converse_as_visitor(server, number)
    messages: list[dict[str, str]] = []
    for text, settings in turns_of(number):
        messages.append({"role": "user", "content": text})
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        body = {"model": "demo_model", "messages": messages, **settings}
        answer = requests.post(url, json=body, timeout=TIMEOUT_SEC)
        assert answer.status_code == 200, answer.text
        messages.append({"role": "assistant", "content": answer.json()["choices"][0]["message"]["content"]})
    return [message["content"] for message in messages[1::2]]


def converse_as_visitor(server: Server, number: int) -> list[str]:
    with Visitor(server.port) as visitor:
        return [
            visitor.ask(text, max_new_tokens=settings.pop("max_tokens"), **settings)
            for text, settings in turns_of(number)
        ]


@contextmanager
def passers_by(server: Server) -> Iterator[None]:
    """Let clients come and leave in the middle of their replies."""

    def come_and_leave(is_over: threading.Event) -> None:
        while not is_over.is_set():
            with SocketChat(server.port, "Tell me a story.") as chat:
                chat.read_until(lambda chat: chat.num_words >= 2)
                chat.reset()
            is_over.wait(0.1)

    with beside(come_and_leave):
        yield


def metric(server: Server, name: str) -> float:
    text = requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=TIMEOUT_SEC).text
    return sum(map(float, re.findall(rf"(?m)^\w*{name}_total(?:\{{.*\}})? (\S+)$", text)))


def test_each_reads_what_it_reads_alone(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    numbers = range(NUM_CONVERSATIONS)
    alone = [converse(server, number) for number in numbers]
    with passers_by(server), ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        together = list(pool.map(lambda number: converse(server, number), numbers))
    differing = [number for number in numbers if together[number] != alone[number]]
    assert differing == []
    for number in numbers:
        found = set(re.findall(r"Q\d{3}x", " ".join(together[number])))
        assert found <= {canary(number)}
    assert metric(server, "prefix_cache_hits") > 0
    assert metric(server, "spec_decode_num_accepted_tokens") > 0
    server.check_idle()
    record_property("figure", f"{NUM_CONVERSATIONS * NUM_TURNS:,} replies, all as alone")
