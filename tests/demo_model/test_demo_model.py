"""Chats with the demo model about things that are not in its training data.

The names, favourite things and ranges here are held out by the generator of the training dialogues: each
passes its `is_held_out`.
"""

from __future__ import annotations

import random
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fakes import Bench

from chatstream_flask.config import SamplingParams
from chatstream_flask.demo_model import PATH
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel

Chat = list[dict[str, str]]
Sample = Callable[[random.Random, str], str]

NUM_SLOTS = 64

torch.set_num_threads(1)  # several are slow on a busy machine, as they wait for each other at every layer

GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "demo_dialogues.py"))
is_held_out: Callable[[str], bool] = GENERATOR["is_held_out"]
person: Sample = GENERATOR["person"]
made: Sample = GENERATOR["made"]

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid"}
CAPITALS_JA = {"日本": "東京", "フランス": "パリ", "ドイツ": "ベルリン", "中国": "北京", "韓国": "ソウル"}


@cache
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(PATH)


@cache
def model() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32)


@cache
def runner() -> ModelRunner:
    runner = ModelRunner(PreparedModel(model(), 1024), tokenizer(), num_slots=NUM_SLOTS)
    runner.open()
    return runner


def held_out(sample: Sample, lang: str, count: int) -> list[str]:
    """Return different words that the training dialogues do not contain."""
    rng = random.Random(count)
    found: dict[str, None] = {}
    while len(found) < count:
        word = sample(rng, lang)
        if is_held_out(word) and len(word) > 1:
            found[word] = None
    return list(found)


def replies(chats: list[Chat], max_new_tokens: int = 60) -> list[str]:
    """Return the next reply of each chat, by greedy decoding."""
    params = SamplingParams(temperature=0, max_new_tokens=max_new_tokens)
    requests = [
        GenerationRequest(
            tokenizer().apply_chat_template(chat, add_generation_prompt=True)["input_ids"], params
        )
        for chat in chats
    ]
    bench = Bench(slots=[NUM_SLOTS], num_waiting=len(chats), chunk_len=1024, make_runner=runner)
    bench.submit(*requests)
    bench.finish_all()
    return [request.text for request in requests]


def last_replies(dialogues: list[list[str]]) -> list[str]:
    """Play dialogues of equally many user turns, the model answering each turn; returns its last replies."""
    chats: list[Chat] = [[] for _ in dialogues]
    last: list[str] = []
    for turn in range(len(dialogues[0])):
        for chat, said in zip(chats, dialogues, strict=True):
            chat.append({"role": "user", "content": said[turn]})
        last = replies(chats)
        for chat, reply in zip(chats, last, strict=True):
            chat.append({"role": "assistant", "content": reply})
    return last


def assert_mostly(answers: list[str], expected: list[str]) -> None:
    """Assert that at least nine in ten replies contain what is expected."""
    wrong = [(answer, right) for answer, right in zip(answers, expected, strict=True) if right not in answer]
    assert len(wrong) <= 0.1 * len(expected), wrong


def test_unseen_names_are_recalled_after_another_turn() -> None:
    names = held_out(person, "en", 100)
    between = ["What is the capital of Italy?", "How are you?", "Count from 2 to 6", "i like cake", "thanks"]
    turns = [[f"My name is {name}.", between[i % 5], "What is my name?"] for i, name in enumerate(names)]
    assert_mostly(last_replies(turns), names)


def test_names_typed_carelessly_are_recalled() -> None:
    names = [name.lower() for name in held_out(person, "en", 60)]
    said = ["im {}", "call me {}", "hi, i'm {}", "my name is {}"]
    turns = [[said[i % 4].format(name), "whats my name"] for i, name in enumerate(names)]
    assert_mostly(last_replies(turns), names)


def test_a_name_alone_answers_the_question_for_it() -> None:
    names = held_out(person, "en", 40)
    assert_mostly(last_replies([["What is my name?", name, "What is my name?"] for name in names]), names)


def test_unseen_japanese_names_are_recalled() -> None:
    names = held_out(person, "ja", 60)
    turns = [[f"私の名前は{name}です。", "ありがとう", "私の名前は何ですか？"] for name in names]
    assert_mostly(last_replies(turns), names)


def test_a_corrected_name_replaces_the_first_one() -> None:
    names = held_out(person, "en", 80)
    first, second = names[:40], names[40:]
    turns = [
        [f"My name is {a}.", f"Actually, my name is {b}.", "What is my name?"]
        for a, b in zip(first, second, strict=True)
    ]
    assert_mostly(last_replies(turns), second)


def test_name_and_favourite_are_recalled_six_turns_later() -> None:
    names, foods = held_out(person, "en", 20), held_out(made, "en", 20)
    between = [
        "Hello!",
        "What is 2 + 3?",
        "What is the capital of Spain?",
        "Tell me a joke.",
        "Count to 8.",
        "Thanks!",
    ]
    told = [
        [f"My name is {name}.", f"My favourite food is {food}.", *between]
        for name, food in zip(names, foods, strict=True)
    ]
    questions = ["What is my name?", "What is my favourite food?"]
    turns = [[*turns, question] for question in questions for turns in told]
    assert_mostly(last_replies(turns), names + foods)


@pytest.mark.xfail(reason="it mixes up two favourites; a longer training keeps them apart", strict=True)
def test_two_favourites_are_kept_apart() -> None:
    names, animals = held_out(person, "en", 20), held_out(made, "en", 20)
    colours = ["blue", "red", "green", "purple"] * 5
    turns = [
        [
            f"I'm {name}",
            f"My favorite color is {colour}",
            f"My favourite animal is {animal}.",
            "What is my favourite colour?",
        ]
        for name, colour, animal in zip(names, colours, animals, strict=True)
    ]
    assert_mostly(last_replies(turns), colours)


def test_it_says_when_it_was_not_told() -> None:
    assert "not told me your name" in last_replies([["What is my name?"]])[0]
    assert "まだ" in last_replies([["私の名前は何ですか？"]])[0]


def test_capitals_are_right() -> None:
    names, names_ja = held_out(person, "en", 5), held_out(person, "ja", 5)
    english = zip(names, CAPITALS, strict=True)
    japanese = zip(names_ja, CAPITALS_JA, strict=True)
    turns = [[f"My name is {name}.", f"What is the capital of {country}?"] for name, country in english]
    turns += [[f"私の名前は{name}です。", f"{country}の首都はどこですか？"] for name, country in japanese]
    assert_mostly(last_replies(turns), [*CAPITALS.values(), *CAPITALS_JA.values()])


def test_ranges_are_counted() -> None:
    """Check counting in dialogues with names that are not in the training data; most ranges are."""
    ranges = [(a, b) for a in range(1, 16) for b in range(a + 3, a + 8)]
    names = held_out(person, "en", len(ranges))
    numbers = [", ".join(str(n) for n in range(a, b + 1)) + "." for a, b in ranges]
    turns = [
        [f"My name is {name}.", f"Count from {a} to {b}."] for name, (a, b) in zip(names, ranges, strict=True)
    ]
    assert_mostly(last_replies(turns), numbers)
    turns = [
        [f"私の名前は{name}です。", f"{a}から{b}まで数えてください。"]
        for name, (a, b) in zip(names, ranges, strict=True)
    ]
    assert_mostly(last_replies(turns), [n.replace(", ", "、").replace(".", "。") for n in numbers])


def test_small_sums_are_right() -> None:
    sums = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    names = held_out(person, "en", len(sums))
    turns = [[f"My name is {name}.", f"What is {a} + {b}?"] for name, (a, b) in zip(names, sums, strict=True)]
    assert_mostly(last_replies(turns), [f"= {a + b}" for a, b in sums])


@pytest.mark.parametrize(
    ("ask", "ending"), [("Tell me a story.", "The end."), ("お話をしてください。", "おしまい。")]
)
def test_a_story_is_long_and_ends_by_itself(ask: str, ending: str) -> None:
    story = replies([[{"role": "user", "content": ask}]], max_new_tokens=400)[0]
    assert len(tokenizer()(story)["input_ids"]) >= 80
    assert story.endswith(ending)


def test_it_says_honestly_what_it_is_in_the_language_it_is_asked_in() -> None:
    english, japanese = last_replies([["Hello!", "Who are you?"], ["Hello!", "あなたは誰ですか？"]])
    assert "very small demo model" in english
    assert "とても小さなデモモデル" in japanese


def test_the_template_renders_a_reply_as_it_was_generated() -> None:
    chat = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": " こんにちは\n"},
    ]
    prompt = tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>You are a helpful assistant.<|end|><|user|>こんにちは<|end|><|assistant|>"
    reply = replies([chat])[0]
    assert reply == reply.strip() != ""
    whole = tokenizer().apply_chat_template([*chat, {"role": "assistant", "content": reply}], tokenize=False)
    assert whole == prompt + reply + tokenizer().eos_token


def test_special_tokens_are_one_token_each() -> None:
    for token in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"):
        assert len(tokenizer()(token)["input_ids"]) == 1
    assert model().generation_config.eos_token_id == tokenizer().convert_tokens_to_ids("<|end|>")


def test_the_tokenizer_gives_back_any_text() -> None:
    for text in ("Hello, Zoë!", "さくらさん、こんにちは。", "佐々木 🎉 ½ ß\n\tend", "12+7=19"):
        assert tokenizer().decode(tokenizer()(text)["input_ids"]) == text


def test_the_model_is_small() -> None:
    assert sum(file.stat().st_size for file in PATH.iterdir() if file.is_file()) <= 8_000_000
    assert model().num_parameters() <= 3_000_000
