"""The OpenAI API through OpenAI's client: structured output, logprobs, and ten different clients at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI

from .server import Server, start
from .test_openai_client import client_of, stream, text_of, user

pytestmark = pytest.mark.server

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "country": {"enum": ["France", "Japan", "日本"]},
        "sure": {"type": "boolean"},
    },
    "required": ["city", "country", "sure"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "capital", "schema": SCHEMA}}
COSTLY = {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}"} for i in range(30)]}

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "logprobs": True, "top_logprobs": 5},
    {"temperature": 0, "frequency_penalty": 2, "presence_penalty": 1},
    {"temperature": 0, "response_format": JSON_SCHEMA},
    {"temperature": 2, "seed": 4, "response_format": JSON_SCHEMA},
    {"temperature": 1.5, "seed": 5, "logprobs": True, "extra_body": {"min_p": 0.1}},
    {"temperature": 1.5, "seed": 6, "logit_bias": {"60": 20, "61": -100}, "extra_body": {"top_k": 0}},
    {"temperature": 1, "seed": 7, "stop": ["e"], "logprobs": True},
    {"temperature": 1, "seed": 8, "top_p": 0.5, "extra_body": {"repetition_penalty": 1.5}},
    {"temperature": 1, "seed": 9, "response_format": {"type": "json_object"}, "max_tokens": 8},
]


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"{kind}-ten")
    with start(kind, folder, num_of_generation_threads=1, num_of_concurrent_executions=10) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with client_of(server) as client:
        yield client
    server.check_idle()


def ask(client: OpenAI, **settings: Any) -> Any:
    """Return the only choice of a response."""
    options = {"max_tokens": 200} | settings
    question = user("What is the capital of France?")
    return client.chat.completions.create(model="demo_model", messages=question, **options).choices[0]


def what_is_told(choice: Any) -> tuple[Any, ...]:
    logprobs = [(t.token, len(t.top_logprobs)) for t in choice.logprobs.content] if choice.logprobs else None
    return choice.message.content, choice.finish_reason, logprobs


def test_ten_clients_with_different_settings_get_answers_as_if_alone(client: OpenAI) -> None:
    alone = [what_is_told(ask(client, **settings)) for settings in SETTINGS]
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        together = list(pool.map(lambda settings: what_is_told(ask(client, **settings)), SETTINGS))
    assert together == alone
    assert len({content for content, *_ in alone}) > 5


def test_a_json_schema_answer_parses_also_at_temperature_2_and_streamed(client: OpenAI) -> None:
    for seed in range(5):
        settings = {"temperature": 2, "seed": seed, "response_format": JSON_SCHEMA}
        choice = ask(client, **settings)
        assert choice.finish_reason == "stop"
        answer = json.loads(choice.message.content)
        assert list(answer) == ["city", "country", "sure"] and len(answer["city"]) <= 12
        chunks = stream(client, "What is the capital of France?", max_tokens=200, **settings)
        assert text_of(chunks) == choice.message.content


def test_a_json_answer_that_is_cut_says_so(client: OpenAI) -> None:
    assert ask(client, response_format=JSON_SCHEMA, max_tokens=4).finish_reason == "length"


def test_a_schema_that_would_take_hours_is_refused_and_harms_nobody(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="too costly"):
        ask(client, response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": COSTLY}})
    assert "Paris" in ask(client, temperature=0).message.content


def test_log_probabilities_are_the_same_whole_and_streamed(client: OpenAI) -> None:
    settings = {"temperature": 0, "logprobs": True, "top_logprobs": 3}
    whole = ask(client, **settings)
    tokens = whole.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == whole.message.content
    assert all(token.top_logprobs[0].token == token.token for token in tokens)
    chunks = stream(client, "What is the capital of France?", **settings)
    told = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in told] == [token.token for token in tokens]
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.logprobs and choice.logprobs.content:
                pieces = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
                assert pieces.decode() == choice.delta.content
