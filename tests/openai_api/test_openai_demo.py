"""The OpenAI-compatible API on the demo model, with its real tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flask.testing import FlaskClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.serving.app import create_app

torch.set_num_threads(1)

CONTENT_ONLY = {"defaults": {}, "start_anchor": "<|assistant|>", "fields": {"content": {"content": "text"}}}
TAKES_PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}[{{ part.text }}]{% endfor %}"
    "<|end|>{% endfor %}<|assistant|>"
)


@contextmanager
def served(folder: Path, **tokenizer_attributes: Any) -> Iterator[tuple[FlaskClient, Any]]:
    model = AutoModelForCausalLM.from_pretrained(demo_model.PATH)
    tokenizer = AutoTokenizer.from_pretrained(demo_model.PATH)
    for name, value in tokenizer_attributes.items():
        setattr(tokenizer, name, value)
    chat_stream = ChatStream(model=model, tokenizer=tokenizer, num_of_generation_threads=1, temperature=0.0)
    app = create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(folder)})
    try:
        yield app.test_client(), tokenizer
    finally:
        chat_stream.close()


def ask(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    body = {"model": "demo_model", "messages": [{"role": "user", "content": "Hello!"}], **fields}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.get_json()["choices"][0]
    return choice


def test_special_tokens_are_text_only_where_a_response_template_reads_them(tmp_path: Path) -> None:
    with served(tmp_path) as (client, tokenizer):
        bias = {str(tokenizer.convert_tokens_to_ids("<|user|>")): 100}
        assert ask(client, logit_bias=bias, max_tokens=3)["message"]["content"] == ""
    with served(tmp_path, response_template=CONTENT_ONLY) as (client, _):
        assert ask(client, logit_bias=bias, max_tokens=3)["message"]["content"] == "<|user|>" * 3
        assert "<|" not in ask(client)["message"]["content"]  # the token that ends a reply is none of it


def test_tokens_of_logprobs_have_their_space_and_parts_of_characters_their_bytes(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        choice = ask(client, logprobs=True, top_logprobs=5)
        entries = choice["logprobs"]["content"]
        assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
        assert any(entry["token"].startswith(" ") for entry in entries)
        for token in (top for entry in entries for top in [entry, *entry["top_logprobs"]]):
            assert bytes(token["bytes"]).decode(errors="replace") == token["token"]


def test_text_parts_reach_a_template_that_takes_them_as_they_were_sent(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hello,"}, {"type": "text", "text": "you!"}]
    with served(tmp_path, chat_template=TAKES_PARTS) as (client, tokenizer):
        sent: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]}),
            ("/v1/responses", {"input": [{"role": "user", "content": parts}]}),
        ]
        expected = tokenizer.apply_chat_template(sent[0][1]["messages"], add_generation_prompt=True)
        for path, body in sent:
            usage = client.post(path, json=body).get_json()["usage"]
            assert usage.get("prompt_tokens", usage.get("input_tokens")) == len(expected["input_ids"])
        tokens = client.post("/tokenize", json=sent[0][1]).get_json()["tokens"]
        assert tokens == expected["input_ids"]
