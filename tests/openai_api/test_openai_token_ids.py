"""Token ids on /v1/completions: as prompts, and of what was generated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import EOS_ID
from flask_fakes import Chat, ScriptedRunner
from openai_fakes import answer, ask, chunks_of, refusal, running_api

TEXT = "/v1/completions"


def ids(text: str) -> list[int]:
    return [ord(char) for char in text]


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    """Answers each prompt with its own text in lower case."""
    with running_api(tmp_path, ScriptedRunner(lambda prompt: prompt.lower())) as chat:
        yield chat


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [(ids("AB"), ["ab"]), ([ids("AB"), ids("C")], ["ab", "c"]), (["AB", "C"], ["ab", "c"])],
)
def test_prompts_may_be_texts_or_token_ids(chat: Chat, prompt: Any, texts: list[str]) -> None:
    got = answer(chat, TEXT, prompt=prompt)
    assert [choice["text"] for choice in got["choices"]] == texts
    assert got["usage"]["prompt_tokens"] == sum(map(len, texts))


@pytest.mark.parametrize("prompt", [["A", 7], [7, [7]], [[7], "A"], [], [[]], [True], [-1], [1.5], {}])
def test_other_prompts_are_refused(chat: Chat, prompt: Any) -> None:
    error = refusal(ask(chat, TEXT, prompt=prompt), 400)
    assert error["param"] and error["param"].startswith("prompt")


def test_an_id_that_the_model_does_not_know_is_refused(chat: Chat) -> None:
    assert refusal(ask(chat, TEXT, prompt=[2**31]), 400)["message"] == "this is no character"


def test_many_token_ids_are_one_prompt_but_prompts_are_limited(chat: Chat) -> None:
    assert answer(chat, TEXT, prompt=ids("A" * 20))["choices"][0]["text"] == "a" * 20
    assert "at most 8" in refusal(ask(chat, TEXT, prompt=[ids("A")] * 9), 400)["message"]


def test_a_whole_answer_has_all_ids_with_the_end_token(chat: Chat) -> None:
    (choice,) = answer(chat, TEXT, prompt="AB", return_token_ids=True)["choices"]
    assert choice["prompt_token_ids"] == ids("AB")
    assert choice["token_ids"] == [*ids("ab"), EOS_ID]


def test_a_stream_has_each_id_once_and_the_prompt_in_the_first_chunk(chat: Chat) -> None:
    chunks = chunks_of(ask(chat, TEXT, prompt=[ids("AB"), ids("C")], return_token_ids=True, stream=True))
    choices = [chunk["choices"][0] for chunk in chunks]
    for index, text in enumerate(["ab", "c"]):
        own = [choice for choice in choices if choice["index"] == index]
        assert [token_id for choice in own for token_id in choice["token_ids"]] == [*ids(text), EOS_ID]
        assert [choice.get("prompt_token_ids") for choice in own] == [ids(text.upper())] + [None] * (
            len(own) - 1
        )


def test_ids_come_while_their_text_is_held_back(chat: Chat) -> None:
    # The stop string is never completed: "ab" is held back until the end.
    response = ask(chat, TEXT, prompt="XYAB", stop="abc", return_token_ids=True, stream=True)
    choices = [chunk["choices"][0] for chunk in chunks_of(response)]
    assert "".join(choice["text"] for choice in choices) == "xyab"
    assert [token_id for choice in choices for token_id in choice["token_ids"]] == [*ids("xyab"), EOS_ID]


def test_a_token_without_text_makes_a_chunk(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "ab", is_held=True)
    with running_api(tmp_path, runner) as chat:
        stream = ask(chat, TEXT, prompt="A", stop="abc", return_token_ids=True, stream=True).iter_encoded()
        assert next(stream).startswith(b":")
        runner.allow()
        assert b'"token_ids": [97]' in next(chunk for chunk in stream if chunk.startswith(b"data"))
        runner.release()
        assert list(stream)[-1].endswith(b"data: [DONE]\n\n")


def test_log_probabilities_can_name_tokens_by_id(chat: Chat) -> None:
    (choice,) = answer(chat, TEXT, prompt="A", logprobs=0, return_tokens_as_token_ids=True)["choices"]
    assert choice["logprobs"]["tokens"] == ["token_id:97"]
    assert choice["logprobs"]["text_offset"] == [0]


@pytest.mark.parametrize("field", ["return_token_ids", "return_tokens_as_token_ids"])
def test_a_chat_answer_has_no_ids(chat: Chat, field: str) -> None:
    fields: dict[str, Any] = {field: True}
    assert refusal(ask(chat, **fields), 400)["param"] == field


def test_without_the_field_an_answer_has_no_ids(chat: Chat) -> None:
    assert answer(chat, TEXT)["choices"][0].keys() == {"index", "text", "finish_reason", "logprobs"}
