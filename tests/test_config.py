"""Settings: every wrong or contradictory value is refused at set-up, with what is allowed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from chatstream_flask import AbstractChatPrompt, ChatPrompt, ChatStream, SimpleSessionRequestHandler
from chatstream_flask.config import EngineConfig, SamplingParams, check_names, shown
from chatstream_flask.errors import ConfigError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_of_concurrent_executions": 0}, "num_of_concurrent_executions must be between 1 and 4096, not 0"),
    ({"num_of_concurrent_executions": True}, "must be a whole number, not True"),
    ({"num_of_concurrent_executions": "2"}, "must be a whole number, not '2'"),
    ({"num_of_concurrent_executions": None}, "must be a whole number, not None"),
    ({"max_queue_size": -1}, "max_queue_size must be between 0 and 1000000, not -1"),
    ({"max_queue_size": 1.5}, "max_queue_size must be a whole number, not 1.5"),
    ({"max_queue_size": 10**5000}, "max_queue_size must be between 0 and 1000000, not a"),
    ({"num_of_generation_threads": 0}, "num_of_generation_threads must be between 1 and 64, not 0"),
    ({"num_of_generation_threads": False}, "num_of_generation_threads must be a whole number, not False"),
    (
        {"num_of_generation_threads": 3},
        "num_of_generation_threads=3 is more than num_of_concurrent_executions=2",
    ),
    ({"too_many_request_as_http_error": "yes"}, "too_many_request_as_http_error must be a bool, not 'yes'"),
    ({"too_many_request_as_http_error": 1}, "too_many_request_as_http_error must be a bool, not 1"),
    ({"use_mock_response": "no"}, "use_mock_response must be True or False, not 'no'"),
    (
        {"mock_params": {"typ": "round"}},
        "unknown mock_params typ; allowed: initial_wait_sec, time_per_token_sec, type",
    ),
    ({"mock_params": {"type": "poem"}}, "mock type must be one of round, long, echo, reasoning, not 'poem'"),
    ({"mock_params": {"time_per_token_sec": -1}}, "time_per_token_sec must be between 0 and 3600, not -1"),
    ({"mock_params": "round"}, "mock_params must be a dict"),
    ({"mock_params": []}, "mock_params must be a dict"),
    ({"chat_prompt_clazz": str}, "chat_prompt_clazz must be a class derived from AbstractChatPrompt"),
    (
        {"chat_prompt_clazz": ChatPrompt()},
        "chat_prompt_clazz must be a class derived from AbstractChatPrompt",
    ),
    ({"chat_prompt_clazz": AbstractChatPrompt}, "AbstractChatPrompt is abstract: it must override render()"),
    (
        {"chat_prompt_clazz": type("NoFormat", (AbstractChatPrompt,), {})},
        "NoFormat is abstract: it must overr",
    ),
    ({"chat_prompt_clazz": ""}, "chat_prompt_clazz must be a class derived from AbstractChatPrompt"),
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
    ({"max_new_tokens": 1024}, "max_new_tokens=1024 leaves no room for a prompt in a context of 1024 tokens"),
    ({"context_len": 256}, "max_new_tokens=256 leaves no room for a prompt in a context of 256 tokens"),
    ({"context_len": 1}, "context_len must be at least 2, not 1"),
    ({"context_len": "long"}, "context_len must be a whole number, not 'long'"),
    ({"temperature": 2.1}, "temperature must be between 0 and 2, not 2.1"),
    ({"temperature": -0.1}, "temperature must be between 0 and 2, not -0.1"),
    ({"temperature": float("nan")}, "temperature must be between 0 and 2, not nan"),
    ({"temperature": float("inf")}, "temperature must be between 0 and 2, not inf"),
    ({"temperature": None}, "temperature must be a number, not None"),
    ({"temperature": False}, "temperature must be a number, not False"),
    ({"top_k": -1}, "top_k must be at least 0, not -1"),
    ({"top_k": 1.0}, "top_k must be a whole number, not 1.0"),
    ({"top_p": 0}, "top_p must be above 0, not 0"),
    ({"top_p": 1.01}, "top_p must be between 0 and 1, not 1.01"),
    ({"repetition_penalty": 0}, "repetition_penalty must be between 0.01 and 100, not 0"),
    ({"repetition_penalty": "1.1"}, "repetition_penalty must be a number, not '1.1'"),
    (
        {"repetition_penalty_method": "divide"},
        "repetition_penalty_method must be 'multiplicative' or 'subtractive', not 'divide'",
    ),
    (
        {"repetition_penalty": 101, "repetition_penalty_method": "subtractive"},
        "repetition_penalty must be between -100 and 100, not 101",
    ),
    ({"add_special_tokens": 1}, "add_special_tokens must be None, True or False, not 1"),
    ({"add_special_tokens": "no"}, "add_special_tokens must be None, True or False, not 'no'"),
    ({"device": "gpu"}, 'device must be "cpu", "mps", "cuda" or "cuda:N", or a list of these, not \'gpu\''),
    ({"device": 0}, 'device must be "cpu", "mps", "cuda" or "cuda:N", or a list of these, not 0'),
    ({"device": ("cpu", "gpu")}, "or a list of these, not 'gpu'"),
    ({"device": []}, "device is an empty list; it must name at least one device, or be None"),
    ({"device": ["cuda", "cuda:1"]}, 'in a list, a CUDA device needs its number: "cuda:0", not "cuda"'),
    ({"device": ["cuda:1", "cpu", "cuda:1"]}, "device names cuda:1 twice, but all threads of a device share"),
    ({"request_handler": SimpleSessionRequestHandler}, "request_handler must be a AbstractRequestHandler"),
    ({"request_handler": ""}, "request_handler must be a AbstractRequestHandler, not ''"),
    ({"logger": "chat"}, "logger must be a Logger, not 'chat'"),
    ({"app": "app"}, "app must be a Flask, not 'app'"),
]


@pytest.mark.parametrize(
    ("kwargs", "sentence"), WRONG, ids=[f"{sorted(k)[0]}-{i}" for i, (k, _) in enumerate(WRONG)]
)
def test_wrong_value(kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChatStream(**{"use_mock_response": True, **kwargs})
    assert sentence in str(caught.value)
    assert isinstance(caught.value, ValueError)


CONFIG = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=128))


def fake_model() -> Any:
    def model() -> None: ...

    model.config = CONFIG  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({}, "model and tokenizer are required, unless use_mock_response=True"),
        ({"model": fake_model()}, "model and tokenizer are required"),
        ({"model": "gpt2", "tokenizer": "gpt2"}, "model must be a loaded transformers model, not 'gpt2'"),
        ({"model": fake_model(), "tokenizer": "gpt2"}, "tokenizer must be a loaded transformers tokenizer"),
        (
            {"model": fake_model(), "tokenizer": SimpleNamespace(decode=str)},
            "max_new_tokens=256 leaves no room for a prompt in a context of 128 tokens (context_len=1024)",
        ),
        (
            {"model": fake_model(), "tokenizer": SimpleNamespace(decode=str), "device": "cpu"}
            | {"max_new_tokens": 8},
            "has no chat template: give one with chat_template",
        ),
    ],
)
def test_wrong_model(kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ChatStream(**kwargs)
    assert sentence in str(caught.value)


def test_only_keywords_and_known_ones() -> None:
    with pytest.raises(TypeError, match="positional"):
        ChatStream(None)  # type: ignore[arg-type, call-arg]
    with pytest.raises(TypeError, match="max_queue_sise"):
        ChatStream(use_mock_response=True, max_queue_sise=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"top_k": None, "top_p": 1, "temperature": 0},
        {"repetition_penalty": -5.5, "repetition_penalty_method": "subtractive"},
        {"max_queue_size": 0, "num_of_concurrent_executions": 3, "num_of_generation_threads": 3},
        {"device": "cuda:1", "add_special_tokens": False, "logger": logging.getLogger("other")},
        {"device": ["cuda:0", "cuda:1"]},
        {"device": ("cpu", "cpu")},
        {"mock_params": {"type": "echo", "initial_wait_sec": 0, "time_per_token_sec": 0.5}},
        {"mock_params": {}},
    ],
)
def test_right_values(kwargs: dict[str, Any]) -> None:
    chat_stream = ChatStream(use_mock_response=True, **kwargs)
    assert not chat_stream.engine.is_started


def test_ancestors_defaults() -> None:
    chat_stream = ChatStream(use_mock_response=True)
    assert chat_stream.params == SamplingParams(
        max_new_tokens=256,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=None,
        repetition_penalty_method="multiplicative",
    )
    assert repr(chat_stream) == "<ChatStream <Engine [0/2 running, 0/5 queued]>>"
    assert chat_stream.engine.config.context_len == 1024


def test_slots_are_shared_within_one_of_each_other() -> None:
    config = EngineConfig(max_running=7, num_of_generation_threads=3)
    assert [config.num_slots(i) for i in range(3)] == [3, 2, 2]


def test_stop_strings() -> None:
    for stop in (["a"], ("",), (1,)):
        with pytest.raises(ConfigError, match="stop must be a list of non-empty strings"):
            SamplingParams(stop=stop)  # type: ignore[arg-type]
    for many in (("a",) * 17, ("a" * 257,)):
        with pytest.raises(ConfigError, match="at most 16 strings of up to 256 characters"):
            SamplingParams(stop=many)


def test_a_message_is_short_whatever_the_value_is() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (
        "x" * 100_000,
        10**4000,
        10**100_000,
        nested,
        {"a": "b" * 9999},
        "\ud83d",
        list(range(9999)),
    ):
        assert len(shown(value)) < 200
        shown(value).encode()
    with pytest.raises(ConfigError) as caught:
        check_names("field", {f"{'x' * 9999}{i}": 1 for i in range(1000)} | {"\ud83d": 1}, {"good"})
    assert len(str(caught.value)) < 500
    assert "and 996 more; allowed: good" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown field 5, Good; allowed: good"):
        check_names("field", {5: 1, "Good": 2}, {"good"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"frequency_penalty": 2.1}, "frequency_penalty must be between -2 and 2, not 2.1"),
        ({"presence_penalty": "1"}, "presence_penalty must be a number, not '1'"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1, not -0.1"),
        ({"min_p": float("nan")}, "min_p must be between 0 and 1, not nan"),
        ({"num_logprobs": 21}, "num_logprobs must be between 0 and 20, not 21"),
        ({"num_logprobs": True}, "num_logprobs must be a whole number, not True"),
        ({"grammar": ""}, "grammar must be a non-empty string, not ''"),
        ({"grammar": {}}, "grammar must be a non-empty string, not {}"),
        ({"logit_bias": [(1, 2)]}, "logit_bias must be pairs of a token id and a number"),
        ({"logit_bias": ((1,),)}, "logit_bias must be pairs of a token id and a number"),
        ({"logit_bias": ((-1, 0),)}, "a token id in logit_bias must be at least 0, not -1"),
        ({"logit_bias": (("1", 0),)}, "a token id in logit_bias must be a whole number, not '1'"),
        ({"logit_bias": ((1, 101),)}, "a bias in logit_bias must be between -100 and 100, not 101"),
        ({"logit_bias": ((1, None),)}, "a bias in logit_bias must be a number, not None"),
        ({"logit_bias": ((7, 1), (7, 2))}, "logit_bias names a token twice"),
        (
            {"logit_bias": tuple((i, 1) for i in range(1025))},
            "logit_bias may name at most 1024 tokens, not 1025",
        ),
    ],
)
def test_wrong_sampling_params(kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SamplingParams(**kwargs)
    assert sentence in str(caught.value)


def test_sampling_params_at_their_limits() -> None:
    SamplingParams(frequency_penalty=-2, presence_penalty=2, min_p=1, num_logprobs=0, grammar="g")
    params = SamplingParams(logit_bias=tuple((i, -100) for i in range(1024)), num_logprobs=20)
    assert "grammar" not in repr(params)  # it may be long
