"""A tokenizer larger than the model's embedding is refused at start, a prompt beyond it with status 400."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_flask import AbstractChatPrompt, ChatStream, demo_model
from chatstream_flask.errors import BadRequest, UnsupportedModel
from chatstream_flask.model_source.vocabulary import check_ids, num_embeddings
from chatstream_flask.prompts import ChatContent
from chatstream_flask.serving.app import create_app

torch.set_num_threads(1)

NUM_ROWS = 1000  # of the demo model


class WritesAddedToken(AbstractChatPrompt):
    """Ends each prompt with a token that was added to the tokenizer."""

    def render(self, contents: list[ChatContent]) -> str:
        return "".join(content.message or "" for content in contents) + "[SEP]"


def demo(num_rows: int = NUM_ROWS) -> tuple[Any, Any]:
    """Return the demo model with an embedding of this many rows, and its tokenizer of 1000 tokens."""
    model: Any = AutoModelForCausalLM.from_pretrained(demo_model.PATH)
    if num_rows != NUM_ROWS:
        model.resize_token_embeddings(num_rows)
    return model, AutoTokenizer.from_pretrained(demo_model.PATH)


@contextmanager
def served(folder: Path, model: Any, tokenizer: Any, **options: Any) -> Iterator[FlaskClient]:
    chat_stream = ChatStream(model=model, tokenizer=tokenizer, num_of_generation_threads=1, **options)
    app = create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(folder)})
    try:
        yield app.test_client()
    finally:
        chat_stream.close()


def start(model: Any, tokenizer: Any) -> None:
    chat_stream = ChatStream(model=model, tokenizer=tokenizer, num_of_generation_threads=1)
    try:
        chat_stream.start_queue_worker()
    finally:
        chat_stream.close()


def test_a_vocabulary_larger_than_the_embedding_is_refused_at_start() -> None:
    model, tokenizer = demo(num_rows=900)
    with pytest.raises(
        UnsupportedModel,
        match=r"100 token\(s\) .* with id 900: the model has ids 0 to 899; load the tokenizer",
    ):
        start(model, tokenizer)


def test_an_embedding_padded_beyond_the_vocabulary_is_served() -> None:
    start(*demo(num_rows=1024))


def test_an_added_token_that_the_chat_template_writes_is_refused_at_start() -> None:
    model, tokenizer = demo()
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
    with pytest.raises(UnsupportedModel, match=r"1 token\(s\) .* '<\|im_start\|>' with id 1000"):
        start(model, tokenizer)


def test_a_padding_token_beyond_the_embedding_is_served() -> None:
    model, tokenizer = demo()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert len(tokenizer) == NUM_ROWS + 1
    start(model, tokenizer)


def test_a_prompt_beyond_the_embedding_is_a_bad_request_on_every_route(tmp_path: Path) -> None:
    model, tokenizer = demo()
    tokenizer.add_tokens(["[SEP]"], special_tokens=True)
    with served(tmp_path, model, tokenizer) as client:
        completion = client.post("/v1/completions", json={"model": "demo_model", "prompt": "a [SEP]"})
        assert completion.status_code == 400
        assert "'[SEP]' (token id 1000)" in completion.get_json()["error"]["message"]
        # In a message it is plain text, and has other ids.
        body = {"model": "demo_model", "messages": [{"role": "user", "content": "a [SEP]"}], "max_tokens": 2}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    first_turn_only = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if messages|length == 1 %}[SEP]{% endif %}"
    )
    tokenizer.chat_template = first_turn_only  # so that the check at start does not see it
    with served(tmp_path, model, tokenizer) as client:
        chat = client.post("/v1/chat/completions", json=body)
        assert (chat.status_code, chat.get_json()["error"]["code"]) == (400, "bad_request")
        page = client.post("/chat_stream", json={"user_input": "a"})
        assert (page.status_code, page.get_json()["error"]) == (400, "bad_request")
        assert client.get("/health/ready").get_json()["status"] == "ready"


def test_a_prompt_class_that_writes_a_token_beyond_the_embedding_is_a_bad_request(tmp_path: Path) -> None:
    model, tokenizer = demo()
    tokenizer.add_tokens(["[SEP]"], special_tokens=True)
    with served(tmp_path, model, tokenizer, chat_prompt_clazz=WritesAddedToken) as client:
        refused = client.post("/chat_stream", json={"user_input": "a"})
        assert (refused.status_code, refused.get_json()["error"]) == (400, "bad_request")
        assert "'[SEP]' (token id 1000), which this model does not know" in refused.get_json()["detail"]


def test_the_last_row_may_be_used() -> None:
    model, tokenizer = demo()
    assert num_embeddings(model) == NUM_ROWS
    check_ids([0, NUM_ROWS - 1], NUM_ROWS, tokenizer)
    check_ids([], NUM_ROWS, tokenizer)
    with pytest.raises(BadRequest, match="token id 1000"):
        check_ids([5, NUM_ROWS, 6], NUM_ROWS, tokenizer)


def test_a_model_that_does_not_tell_its_embedding_is_not_checked() -> None:
    assert num_embeddings(object()) is None
