"""The routes that vLLM and llama.cpp have beside /v1, and the names of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from openai_fakes import refusal

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.serving.app import create_app

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    chat_stream = ChatStream.from_pretrained(demo_model.PATH, device="cpu", model_name="acme/chat")
    config = {
        "CHATSTREAM_STORE_DIR": str(tmp_path),
        "CHATSTREAM_MODEL_ALIASES": ["gpt-4o-mini"],
    }
    with closing(chat_stream):
        yield create_app(chat_stream, config).test_client()


def post(client: FlaskClient, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def test_health_is_503_until_requests_are_accepted(tmp_path: Path) -> None:
    chat_stream = ChatStream(use_mock_response=True)
    client = create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path)}).test_client()
    assert client.get("/health").status_code == client.get("/ping").status_code == 503
    with closing(chat_stream):
        chat_stream.start_queue_worker()
        for path in ("/health", "/ping"):
            assert (client.get(path).status_code, client.get(path).get_json()) == (200, {"status": "ok"})
    assert client.get("/health").status_code == 503


def test_version(client: FlaskClient) -> None:
    assert client.get("/version").get_json() == {"version": version("chatstream-flask")}


@pytest.mark.parametrize("field", ["prompt", "content"])  # vLLM's name, and llama.cpp's
def test_a_text_goes_into_tokens_and_back(client: FlaskClient, field: str) -> None:
    text = "Hello, <|user|> 世界!"
    tokens = post(client, "/tokenize", **{field: text, "return_token_strs": True})
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert "<|user|>" in tokens["token_strs"]
    assert post(client, "/detokenize", tokens=tokens["tokens"]) == {"prompt": text, "content": text}


def test_messages_are_tokenized_as_the_chat_does_it(client: FlaskClient) -> None:
    tokens = post(client, "/tokenize", model="acme/chat", **HELLO)
    completion = post(client, "/v1/chat/completions", max_tokens=1, **HELLO)
    assert tokens["count"] == completion["usage"]["prompt_tokens"]
    without = post(client, "/tokenize", add_generation_prompt=False, **HELLO)["tokens"]
    assert tokens["tokens"][: len(without)] == without and len(without) < tokens["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [10**6]}, None),
        ("/detokenize", {"tokens": [2**63]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(
    client: FlaskClient, path: str, body: dict[str, Any], param: str | None
) -> None:
    assert refusal(client.post(path, json=body), 400)["param"] == param


def test_the_model_has_its_name_and_its_aliases(client: FlaskClient) -> None:
    names = [model["id"] for model in client.get("/v1/models").get_json()["data"]]
    assert names == ["acme/chat", "gpt-4o-mini"]
    for given, shown in ((None, "acme/chat"), ("acme/chat", "acme/chat"), ("gpt-4o-mini", "gpt-4o-mini")):
        body = HELLO | {"max_tokens": 1} | ({"model": given} if given else {})
        assert post(client, "/v1/chat/completions", **body)["model"] == shown
    for path in ("/v1/completions", "/tokenize"):
        response = client.post(path, json={"prompt": "a", "model": "gpt-9"})
        assert refusal(response, 404)["code"] == "model_not_found"


def test_any_name_where_the_app_says_so(tmp_path: Path) -> None:
    config = {"CHATSTREAM_STORE_DIR": str(tmp_path), "CHATSTREAM_MODEL_ALIASES": ["*"]}
    with closing(ChatStream(use_mock_response=True)) as chat_stream:
        client = create_app(chat_stream, config).test_client()
        assert post(client, "/v1/chat/completions", model="gpt-9", **HELLO)["model"] == "gpt-9"
        assert [model["id"] for model in client.get("/v1/models").get_json()["data"]] == ["mock"]
