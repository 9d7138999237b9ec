"""The contract of the chat, with a model in this process and with two servers of this package as engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from live.threaded_server import served

from chatstream_flask import ChatStream
from chatstream_flask.client.events import parse_events, text_of
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.serving.app import create_app

SSE = {"Accept": "text/event-stream"}
KINDS = ["local", "two servers"]


def app_of(chat_stream: ChatStream, folder: Path) -> Flask:
    folder.mkdir()
    return create_app(
        chat_stream,
        {"CHATSTREAM_STORE": "memory://", "CHATSTREAM_COOKIE_SECURE": False, "CHATSTREAM_METRICS": "open"},
        exclude=(),
    )


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Flask]]:
    folder = tmp_path_factory.mktemp("apps")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        urls = []
        for name in ("a", "b"):
            chat_stream = ChatStream.from_pretrained(DEMO_MODEL, num_of_concurrent_executions=4)
            stack.callback(chat_stream.close)
            urls.append(f"http://127.0.0.1:{stack.enter_context(served(app_of(chat_stream, folder / name)))}")
        made = {}
        for kind in KINDS:
            chat_stream = ChatStream.from_pretrained(
                DEMO_MODEL, engine=None if kind == "local" else urls, max_queue_size=1
            )
            stack.callback(chat_stream.close)
            made[kind] = app_of(chat_stream, folder / kind)
        yield made


@pytest.fixture(params=KINDS)
def client(apps: dict[str, Flask], request: pytest.FixtureRequest) -> FlaskClient:
    return apps[request.param].test_client()


@pytest.fixture(autouse=True, scope="module")
def no_thread_is_left() -> None:
    """Leave the servers of this module their threads until its end."""


def say(client: FlaskClient, text: str, **body: Any) -> str:
    response = client.post("/chat_stream", json={"user_input": text, "temperature": 0, **body}, headers=SSE)
    events = parse_events(response.data)
    assert events[-1].name == "done", events
    return text_of(events)


def completion(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "What can you do?"}], "temperature": 0, "max_tokens": 30}
    response = client.post("/v1/chat/completions", json=body | fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def test_replies_and_conversations_are_the_same(apps: dict[str, Flask]) -> None:
    talks = []
    for app in apps.values():
        client = app.test_client()
        talks.append([say(client, "My name is Ann."), say(client, "What is my name?")])
    assert talks[0] == talks[1]
    assert "Ann" in talks[0][1]


def test_answers_of_openai_api_are_the_same(apps: dict[str, Flask]) -> None:
    fields: list[dict[str, Any]] = [
        {},
        {"max_tokens": 4},
        {"stop": "name"},
        {"logprobs": True, "top_logprobs": 2},
        {"repetition_penalty": 1.3, "logit_bias": {"17": 3}},
        {"temperature": 1, "seed": 5, "top_k": 20},
    ]
    for given in fields:
        local, remote = (completion(app.test_client(), **given) for app in apps.values())
        for key in ("message", "finish_reason"):
            assert local["choices"][0][key] == remote["choices"][0][key], given
        assert local["usage"]["completion_tokens"] == remote["usage"]["completion_tokens"]
        pairs = [
            [entry["logprob"] for entry in (answer["choices"][0]["logprobs"] or {"content": []})["content"]]
            for answer in (local, remote)
        ]
        assert pairs[0] == pytest.approx(pairs[1], abs=1e-4)


def test_what_the_engine_cannot_do_is_refused(apps: dict[str, Flask]) -> None:
    client = apps["two servers"].test_client()
    for fields in ({"response_format": {"type": "json_object"}}, {"bad_words": ["name"]}):
        body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 400, response.text
        assert "an engine that is reached over HTTP" in response.get_json()["error"]["message"]


def test_metrics_and_readiness_tell_of_the_engines(apps: dict[str, Flask]) -> None:
    client = apps["two servers"].test_client()
    say(client, "Hello")
    metrics = client.get("/metrics").text
    assert metrics.count("chatstream_engine_up{") == 2
    assert "chatstream_engine_failures_total{" in metrics
    assert client.get("/health/ready").status_code == 200
    assert "chatstream_engine_up" not in apps["local"].test_client().get("/metrics").text
