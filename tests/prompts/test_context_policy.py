"""Turns that are dropped from a conversation that does not fit into the context."""

from __future__ import annotations

import pytest
from transformers import ByT5Tokenizer

from chatstream_flask.config import ContextPolicy
from chatstream_flask.errors import ConfigError, PromptTooLong
from chatstream_flask.prompts import AbstractChatPrompt, TextPrompt
from chatstream_flask.prompts.fit import FittedPrompt, fit_to_context

TOKENIZER = ByT5Tokenizer()  # one token per byte


class Shots(TextPrompt):
    system_format = "{system};"
    reply_format = "{message};"

    def build_initial_prompt(self, chat_prompt: AbstractChatPrompt) -> None:
        chat_prompt.set_system("S")
        for i in range(2):
            chat_prompt.add_requester_msg(f"e{i}")
            chat_prompt.add_responder_msg(f"E{i}")


def conversation() -> Shots:
    """Return a conversation that renders as `S;e0E0;e1E1;q0A0;q1A1;q2`."""
    prompt = Shots()
    prompt.build_initial_prompt(prompt)
    for i in range(3):
        prompt.add_requester_msg(f"q{i}")
        prompt.add_responder_msg(f"A{i}" if i < 2 else None)
    return prompt


def fit(max_tokens: int, policy: ContextPolicy) -> tuple[str, int]:
    prompt = conversation()
    fitted: FittedPrompt = fit_to_context(prompt, TOKENIZER, max_tokens, False, policy)
    assert prompt.create_prompt() == "S;e0E0;e1E1;q0A0;q1A1;q2"
    return str(TOKENIZER.decode(fitted.token_ids)), fitted.num_dropped_turns


@pytest.mark.parametrize("policy", ContextPolicy)
def test_what_fits_stays_whole(policy: ContextPolicy) -> None:
    assert fit(24, policy) == ("S;e0E0;e1E1;q0A0;q1A1;q2", 0)


def test_error() -> None:
    with pytest.raises(PromptTooLong, match="this conversation has 24 tokens, but 23 are allowed"):
        fit(23, ContextPolicy.ERROR)


def test_drop_oldest_turns() -> None:
    policy = ContextPolicy.DROP_OLDEST_TURNS
    assert fit(23, policy) == (
        "S;e0E0;e1E1;q2",
        2,
    )  # 19 tokens with q1A1, but 18 are two thirds or half of what q2 leaves
    assert fit(18, policy) == ("S;e0E0;e1E1;q2", 2)
    with pytest.raises(PromptTooLong, match="the prompt of the newest message has 14 tokens, but 13 are"):
        fit(13, policy)


def test_keep_system_and_recent() -> None:
    policy = ContextPolicy.KEEP_SYSTEM_AND_RECENT
    assert fit(23, policy) == ("S;q0A0;q1A1;q2", 0)
    assert fit(18, policy) == ("S;q1A1;q2", 1)
    assert fit(13, policy) == ("S;q2", 2)
    assert fit(8, policy) == ("S;q2", 2)
    with pytest.raises(PromptTooLong, match="the prompt of the newest message has 4 tokens, but 3 are"):
        fit(3, policy)


def test_a_policy_has_a_name() -> None:
    assert ContextPolicy("keep_system_and_recent") is ContextPolicy.KEEP_SYSTEM_AND_RECENT
    with pytest.raises(ConfigError, match="'keep_system_and_recent', not 'drop'"):
        ContextPolicy("drop")
