"""The tokenizer of a ChatStream is its own: what the host does with the one it gave changes no prompt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatstream_flask import ChatStream
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.inference.loading.load_model import load_model

TEXT = "What is the capital of France? My name is Hanako, and I like green tea."


@pytest.fixture
def loaded() -> tuple[Any, Any]:
    model, tokenizer, _ = load_model(str(DEMO_MODEL), "cpu")
    return model, tokenizer


def test_a_host_that_truncates_cuts_no_prompt(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    chat_stream = ChatStream(model=model, tokenizer=tokenizer)
    whole = chat_stream.source.encode_text(TEXT)
    tokenizer(TEXT, truncation=True, max_length=8, padding="max_length")
    assert chat_stream.source.encode_text(TEXT) == whole
    assert len(tokenizer.encode(TEXT, truncation=True, max_length=8)) == 8 < len(whole)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 8  # nor is the host's setting undone


def test_a_tokenizer_that_arrives_with_truncation_cuts_no_prompt(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    whole = tokenizer.encode(TEXT)
    tokenizer(TEXT, truncation=True, max_length=8)
    assert ChatStream(model=model, tokenizer=tokenizer).source.encode_text(TEXT) == whole


def test_many_threads_encode_and_decode_beside_a_host_that_truncates(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    source = ChatStream(model=model, tokenizer=tokenizer).source
    whole = source.encode_text(TEXT)

    def prompts(_: int) -> bool:
        return all(source.encode_text(TEXT) == whole and source.decode(whole) == TEXT for _ in range(50))

    def host(_: int) -> bool:
        return all(len(tokenizer(TEXT, truncation=True, max_length=8)["input_ids"]) == 8 for _ in range(50))

    with ThreadPoolExecutor(8) as threads:
        tasks = [threads.submit(work, i) for i in range(4) for work in (prompts, prompts, host)]
    assert all(task.result() for task in tasks)


def test_a_template_whose_turns_end_in_another_token_is_mended(
    loaded: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As Llama 3 with <|end_of_text|> as its only end token: the reply would run on."""
    model, tokenizer = loaded
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    other = next(
        token for token in tokenizer.get_added_vocab() if token not in ("<|end|>", tokenizer.pad_token)
    )
    model.generation_config.eos_token_id, tokenizer.eos_token = end, "<|end|>"
    source: Any = ChatStream(model=model, tokenizer=tokenizer).source
    assert source.make_runner(1, 1, 0).eos_ids == {end}
    assert not caplog.records
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}" + other + "{% endfor %}"
    mended: Any = ChatStream(model=model, tokenizer=tokenizer).source
    assert mended.make_runner(1, 1, 0).eos_ids == {end, tokenizer.convert_tokens_to_ids(other)}
    assert f"ends its turns with {other}" in caplog.text


def test_replies_that_nothing_is_to_end_stay_so(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    source: Any = ChatStream(model=model, tokenizer=tokenizer).source
    assert source.make_runner(1, 1, 0).eos_ids == frozenset()
