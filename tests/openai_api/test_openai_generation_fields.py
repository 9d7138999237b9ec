"""Fields that steer a reply, on the demo model with its real tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from openai_fakes import refusal

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.serving.app import create_app

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    options: dict[str, Any] = {"device": "cpu", "temperature": 0.0, "num_of_generation_threads": 1}
    with closing(ChatStream.from_pretrained(demo_model.PATH, **options)) as chat_stream:
        yield create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path)}).test_client()


def chat(client: FlaskClient, **fields: Any) -> tuple[str, dict[str, Any]]:
    response = client.post(CHAT, json={"messages": HELLO} | fields)
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.get_json()["choices"][0]
    return choice["message"]["content"], choice | {"usage": response.get_json()["usage"]}


def complete(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = client.post(TEXT, json={"prompt": "Hello"} | fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def tokens(client: FlaskClient, text: str) -> list[int]:
    return list(client.post("/tokenize", json={"prompt": text}).get_json()["tokens"])


def test_a_reply_does_not_end_before_its_minimum(client: FlaskClient) -> None:
    plain, choice = chat(client)
    num = choice["usage"]["completion_tokens"]
    for name in ("min_tokens", "min_new_tokens"):
        longer, choice = chat(client, **{name: num + 3})
        assert choice["usage"]["completion_tokens"] >= num + 3 and longer.startswith(plain)
    stop = plain[1:4]
    assert chat(client, stop=stop)[0] == plain[:1]
    assert chat(client, stop=stop, min_tokens=num - 1)[0] == plain
    assert (
        "min_new_tokens" in refusal(client.post(CHAT, json=body(min_tokens=9, max_tokens=8)), 400)["message"]
    )


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO} | fields


def test_bad_words_never_come(client: FlaskClient) -> None:
    word = chat(client)[0].split()[0]
    assert word not in chat(client, bad_words=[word])[0]


def test_only_allowed_tokens_come(client: FlaskClient) -> None:
    allowed = tokens(client, "yes no")
    text = complete(client, allowed_token_ids=allowed, max_tokens=5)["choices"][0]["text"]
    assert text and set(tokens(client, text)) <= set(tokens(client, "yes no yes"))
    error = refusal(client.post(TEXT, json={"prompt": "a", "allowed_token_ids": [10**7]}), 400)
    assert "allowed_token_ids contains token id 10000000" in error["message"]


def test_where_no_token_is_allowed_only_this_reply_fails(client: FlaskClient) -> None:
    response = client.post(
        TEXT, json={"prompt": "a", "allowed_token_ids": tokens(client, "a"), "bad_words": ["a"]}
    )
    assert refusal(response, 500)["type"] == "server_error"
    for _ in range(7):  # more often than a model may fail before it counts as broken
        client.post(TEXT, json={"prompt": "a", "allowed_token_ids": tokens(client, "a"), "bad_words": ["a"]})
    assert client.get("/health").status_code == 200 and chat(client)[0]


def test_limits_of_a_grammar_cannot_be_narrowed(client: FlaskClient) -> None:
    for field in ({"min_tokens": 1}, {"bad_words": ["a"]}, {"allowed_token_ids": [5]}):
        response = client.post(CHAT, json=body(response_format={"type": "json_object"}) | field)
        assert "cannot be combined with a grammar" in refusal(response, 400)["message"]


def test_a_stop_string_may_end_the_text(client: FlaskClient) -> None:
    plain = chat(client)[0]
    for stop in (plain[2:5], plain[2]):
        end = plain.index(stop)
        assert chat(client, stop=stop)[0] == plain[:end]
        text, choice = chat(client, stop=stop, include_stop_str_in_output=True, logprobs=True)
        assert text == plain[: end + len(stop)]
        assert "".join(entry["token"] for entry in choice["logprobs"]["content"]).startswith(text)


def test_special_tokens_are_shown_where_they_are_wanted(client: FlaskClient) -> None:
    special = tokens(client, "<|user|>")[0]
    fields: dict[str, Any] = {"logit_bias": {str(special): 100}, "max_tokens": 2}
    assert complete(client, **fields)["choices"][0]["text"] == ""
    shown = complete(client, skip_special_tokens=False, **fields)["choices"][0]["text"]
    assert shown == "<|user|><|user|>"


def test_a_prompt_is_repeated_where_the_client_asks(client: FlaskClient) -> None:
    plain = complete(client, max_tokens=4)
    echoed = complete(client, max_tokens=4, echo=True)
    assert echoed["choices"][0]["text"] == "Hello" + plain["choices"][0]["text"]
    streamed = client.post(TEXT, json={"prompt": "Hello", "max_tokens": 4, "echo": True, "stream": True}).text
    assert '"text": "Hello' in streamed


def test_a_prompt_is_cut_to_its_last_tokens(client: FlaskClient) -> None:
    ids = tokens(client, "one two three four five")
    cut = complete(client, prompt="one two three four five", truncate_prompt_tokens=3, max_tokens=4)
    assert cut["usage"]["prompt_tokens"] == 3
    assert cut["choices"][0]["text"] == complete(client, prompt=ids[-3:], max_tokens=4)["choices"][0]["text"]
    endless = "one two " * 2000
    assert refusal(client.post(TEXT, json={"prompt": endless}), 400)["code"] == "context_length_exceeded"
    assert complete(client, prompt=endless, truncate_prompt_tokens=-1, max_tokens=4)["choices"][0]["text"]


def test_the_limit_has_another_name_in_llama_cpp(client: FlaskClient) -> None:
    assert complete(client, n_predict=3)["usage"]["completion_tokens"] == 3
    assert chat(client, n_predict=-1)[0] == chat(client)[0]


@pytest.mark.parametrize("prompt", ["one two " * 2000, "x" * 400_000])
def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_clients_look_for(
    client: FlaskClient, prompt: str
) -> None:
    error = refusal(client.post(CHAT, json={"messages": [{"role": "user", "content": prompt}]}), 400)
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is ")
