"""Log-probabilities of prompts over HTTP, as lm-evaluation-harness and clients of vLLM read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from flask_fakes import ScriptedRunner
from openai_fakes import ask, refusal, running_api
from transformers import AutoModelForCausalLM

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.serving.app import create_app

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPT = "Hello! How are you today? 日本"
SCORE: dict[str, Any] = {
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": 1,
    "seed": 1234,
    "echo": True,
}  # of lm-eval


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "num_of_generation_threads": 1}
    with closing(ChatStream.from_pretrained(demo_model.PATH, **options)) as chat_stream:
        yield create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path)}).test_client()


def post(client: FlaskClient, path: str = TEXT, **fields: Any) -> dict[str, Any]:
    response = client.post(path, json=fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def tokens(client: FlaskClient, text: str) -> list[int]:
    return list(client.post("/tokenize", json={"prompt": text}).get_json()["tokens"])


@cache
def own_model() -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(demo_model.PATH, dtype=torch.float32)


def own_scores(ids: list[int]) -> torch.Tensor:
    """Return what the model computes by itself, `[tokens, vocab]`."""
    with torch.inference_mode():
        scores: torch.Tensor = own_model()(torch.tensor([ids])).logits[0].log_softmax(-1)
    return scores


def test_a_prompt_is_scored_as_lm_evaluation_harness_asks(client: FlaskClient) -> None:
    ids = tokens(client, PROMPT)
    (choice,) = post(client, prompt=[ids], **SCORE)["choices"]
    scores, logprobs = own_scores(ids), choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    expected = [scores[i, token_id].item() for i, token_id in enumerate(ids[1:])]
    assert logprobs["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-3)
    assert len(logprobs["tokens"]) == len(ids) + 1  # one was generated
    for i, top in enumerate(logprobs["top_logprobs"][1:-1]):
        assert list(top.values()) == pytest.approx([scores[i].max().item()], abs=1e-3)
        is_greedy = logprobs["token_logprobs"][i + 1] == max(top.values())
        assert is_greedy == (scores[i].argmax().item() == ids[i + 1])


def test_the_offsets_are_those_of_the_text(client: FlaskClient) -> None:
    (choice,) = post(client, prompt=PROMPT, **SCORE)["choices"]
    logprobs, text = choice["logprobs"], choice["text"]
    assert text.startswith(PROMPT)
    stops = [*logprobs["text_offset"][1:], len(text)]
    for token, start, stop in zip(logprobs["tokens"], logprobs["text_offset"], stops, strict=True):
        assert stop == start or text[start:stop] in (token, token.lstrip()), (token, start, stop)


@pytest.mark.parametrize("stream", [False, True])
def test_without_tokens_to_generate_there_is_the_prompt_alone(client: FlaskClient, stream: bool) -> None:
    ids = tokens(client, PROMPT)
    fields = SCORE | {"prompt": [ids, ids[:3]], "max_tokens": 0, "stream": stream}
    response = client.post(TEXT, json=fields)
    if stream:
        events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        parts = [part for event in events for part in json.loads(event)["choices"]]
    else:
        parts = response.get_json()["choices"]
        usage = response.get_json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(ids) + 3, 0)
    for index, prompt in enumerate((ids, ids[:3])):
        own = [part for part in parts if part["index"] == index]
        values = [value for part in own for value in (part["logprobs"] or {}).get("token_logprobs", ())]
        assert values[0] is None and len(values) == len(prompt) and all(v <= 0 for v in values[1:])
        assert own[-1]["finish_reason"] == "length"
    assert "".join(part["text"] for part in parts if part["index"] == 0) == PROMPT
    plain = post(client, prompt=ids, max_tokens=0)
    assert (plain["choices"][0]["text"], plain["choices"][0]["logprobs"]) == ("", None)


def test_a_token_that_ends_the_reply_has_its_place(client: FlaskClient) -> None:
    """Clients that score a prompt leave out the last value, which must not be one of the prompt."""
    ids = tokens(client, PROMPT)
    plain = post(client, prompt=ids, max_tokens=1, return_token_ids=True, temperature=0)["choices"][0]
    ending = plain["token_ids"]
    (choice,) = post(client, prompt=ids, stop_token_ids=ending, **SCORE)["choices"]
    assert len(choice["logprobs"]["token_logprobs"]) == len(ids) + 1
    assert choice["finish_reason"] == "stop" and choice["text"] == PROMPT


def test_vllms_prompt_logprobs_on_both_routes(client: FlaskClient) -> None:
    ids = tokens(client, PROMPT)
    answer = post(client, prompt=ids, prompt_logprobs=2, max_tokens=1)
    first, *others = answer["choices"][0]["prompt_logprobs"]
    assert first is None and answer["choices"][0]["logprobs"] is None
    scores = own_scores(ids)
    for row, token_id, entry in zip(scores, ids[1:], others, strict=False):
        own = entry[str(token_id)]
        assert own["logprob"] == pytest.approx(row[token_id].item(), abs=1e-3)
        assert own["rank"] == 1 + int((row > row[token_id]).sum()) and own["decoded_token"]
        assert set(entry) == {str(token_id), *map(str, row.topk(2).indices.tolist())}
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answer = post(client, CHAT, prompt_logprobs=0, **fields)
    prompt_tokens = answer["usage"]["prompt_tokens"]
    assert [entry and len(entry) for entry in answer["prompt_logprobs"]] == [None] + [1] * (prompt_tokens - 1)
    assert "prompt_logprobs" not in post(client, CHAT, **fields)


def test_what_cannot_be_had_is_refused_with_its_name(client: FlaskClient, tmp_path: Path) -> None:
    for fields in ({"prompt_logprobs": -1}, {"prompt_logprobs": 21}, {"prompt_logprobs": 1, "stream": True}):
        error = refusal(client.post(TEXT, json={"prompt": "a"} | fields), 400)
        assert error["param"] == "prompt_logprobs"
    with running_api(tmp_path, ScriptedRunner()) as chat:

        @chat.chat_stream.before_reply
        def add(context: Any) -> None:
            context.add_text("private", title="notes")

        error = refusal(ask(chat, prompt_logprobs=1), 400)
        assert error["param"] == "prompt_logprobs" and "may add to the prompt" in error["message"]


def test_the_mock_says_that_it_has_none(tmp_path: Path) -> None:
    with closing(ChatStream(use_mock_response=True)) as mock:
        client = create_app(mock, {"CHATSTREAM_STORE_DIR": str(tmp_path)}).test_client()
        error = refusal(client.post(TEXT, json={"prompt": "a", "echo": True, "logprobs": 1}), 400)
        assert "the mock has no log-probabilities of a prompt" in error["message"]
        assert post(client, prompt="a", max_tokens=0)["usage"]["completion_tokens"] == 0
