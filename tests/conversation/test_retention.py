"""Limits on the size of one stored conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatstream_flask.conversation.record_json import to_json
from chatstream_flask.conversation.retention import _surely_fits, trim_to_limits
from chatstream_flask.prompts import AbstractChatPrompt


class Prompt(AbstractChatPrompt):
    def build_initial_prompt(self, chat_prompt: AbstractChatPrompt) -> None:
        chat_prompt.set_system("system")
        chat_prompt.add_requester_msg("example")
        chat_prompt.add_responder_msg("answer")


def talk(num_turns: int, length: int = 1) -> Prompt:
    prompt = Prompt()
    prompt.build_initial_prompt(prompt)
    for n in range(num_turns):
        prompt.add_requester_msg(f"q{n}")
        prompt.add_responder_msg(f"{n}" * length)
    return prompt


def questions(prompt: Prompt) -> list[str | None]:
    return [content.message for content in prompt.get_contents() if content.is_requester]


def num_bytes(prompt: Prompt) -> int:
    return len(json.dumps(prompt.to_dict(), ensure_ascii=False, separators=(",", ":")).encode())


def test_without_limits_it_is_the_same() -> None:
    prompt = talk(3)
    assert trim_to_limits(prompt) is prompt
    assert trim_to_limits(prompt, max_turns=3, max_bytes=num_bytes(prompt)) is prompt


@pytest.mark.parametrize(("max_turns", "expected"), [(2, ["q1", "q2"]), (1, ["q2"]), (0, ["q2"])])
def test_max_turns_leaves_out_the_oldest(max_turns: int, expected: list[str]) -> None:
    prompt = talk(3)
    short = trim_to_limits(prompt, max_turns=max_turns)
    assert questions(short) == ["example", *expected]
    assert (short.system, short.num_initial) == ("system", 2)
    assert questions(prompt) == ["example", "q0", "q1", "q2"]


def test_max_bytes_leaves_out_as_few_as_it_can() -> None:
    prompt = talk(6, length=100)
    sizes = [num_bytes(prompt.without_oldest_turns(n)) for n in range(6)]
    for n, size in enumerate(sizes):
        assert trim_to_limits(prompt, max_bytes=size).get_turn() == 6 - n
        assert trim_to_limits(prompt, max_bytes=size - 1).get_turn() == max(1, 5 - n)


def test_the_newest_turn_stays_even_if_too_long() -> None:
    short = trim_to_limits(talk(3, length=1000), max_turns=2, max_bytes=10)
    assert questions(short) == ["example", "q2"]
    assert short.get_responder_last_msg() == "2" * 1000


def test_both_limits() -> None:
    prompt = talk(6, length=100)
    size = num_bytes(prompt.without_oldest_turns(4))
    assert trim_to_limits(prompt, max_turns=4, max_bytes=size).get_turn() == 2
    assert trim_to_limits(prompt, max_turns=1, max_bytes=size).get_turn() == 1


@pytest.mark.parametrize("num_turns", [0, 1])
def test_nothing_to_leave_out(num_turns: int) -> None:
    prompt = talk(num_turns)
    assert trim_to_limits(prompt, max_turns=1, max_bytes=1) is prompt


class Counting(Prompt):
    num_written = 0

    def to_dict(self) -> dict[str, Any]:
        Counting.num_written += 1
        return super().to_dict()


def test_a_long_conversation_at_its_limit_is_written_twice_to_be_measured() -> None:
    prompt = Counting()
    for n in range(1000):
        prompt.add_requester_msg(f"q{n}")
        prompt.add_responder_msg("a" * 100)
    size = num_bytes(prompt) - 1
    Counting.num_written = 0
    assert trim_to_limits(prompt, max_bytes=size).get_turn() == 999
    assert Counting.num_written == 2


@pytest.mark.parametrize("text", ["\0", "\U0001f600", "\ud83d", '"', "\u2028", "あ"])
def test_a_conversation_that_surely_fits_does(text: str) -> None:
    prompt = talk(3)
    prompt.add_requester_msg(text * 100)
    prompt.add_responder_msg("a")
    prompt.get_contents()[-1].reasoning = text * 1000
    estimate = next(size for size in range(10**6) if _surely_fits(prompt, size))
    assert len(to_json(prompt.to_dict()).encode()) <= estimate
