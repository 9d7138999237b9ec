"""Long prompts: refused by their characters before they are tokenized, or tokenized one at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fakes import TIMEOUT

from chatstream_flask.errors import PromptTooLong
from chatstream_flask.model_source.long_prompts import LONG, LongPrompts


class Vocabulary:
    """A tokenizer whose longest token has 50 characters."""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, " " * 50: 1, "<s>": 2}


CONTEXT_LEN = 2000
MAX_CHARS = CONTEXT_LEN * 50
assert MAX_CHARS > LONG


@pytest.mark.parametrize(
    "prompt",
    [
        "a" * (MAX_CHARS + 1),
        [{"role": "user", "content": "a" * MAX_CHARS}],
        [{"role": "user", "content": [{"type": "text", "text": "a" * MAX_CHARS}]}],
        [{"role": "user", "content": "a"}] * (MAX_CHARS // 10),
        [{"role": "user", "content": ""}, {"function": {"parameters": {"a" * MAX_CHARS: {}}}}],
    ],
    ids=["text", "message", "part", "many messages", "tool"],
)
def test_what_cannot_fit_is_refused_before_it_is_tokenized(prompt: Any) -> None:
    with (
        pytest.raises(PromptTooLong, match=f"tokens, which cannot hold more than {MAX_CHARS}") as caught,
        LongPrompts(Vocabulary(), CONTEXT_LEN).tokenizing(prompt),
    ):
        pytest.fail("it is tokenized")
    assert caught.value.num_tokens == CONTEXT_LEN


def test_what_may_fit_is_tokenized() -> None:
    """Also where only the longest token would make it fit."""
    done = []
    for prompt in ("a" * MAX_CHARS, " " * MAX_CHARS, "a", ""):
        with LongPrompts(Vocabulary(), CONTEXT_LEN).tokenizing(prompt):
            done.append(prompt)
    assert len(done) == 4


def test_a_tokenizer_that_does_not_list_its_tokens_has_no_limit() -> None:
    with LongPrompts(object(), 1).tokenizing("a" * 10**6):
        pass


def test_long_prompts_are_tokenized_one_at_a_time_and_short_ones_do_not_wait() -> None:
    long_prompts = LongPrompts(Vocabulary(), CONTEXT_LEN)
    first_may_end, second_began = threading.Event(), threading.Event()

    def second() -> None:
        with long_prompts.tokenizing("a" * LONG):
            second_began.set()

    thread = threading.Thread(target=second)
    with long_prompts.tokenizing("a" * LONG):
        thread.start()
        with long_prompts.tokenizing("a"):
            first_may_end.set()
        assert first_may_end.is_set()
        assert not second_began.wait(0.1)
    assert second_began.wait(TIMEOUT)
    thread.join()
