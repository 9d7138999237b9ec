"""Every field that clients send is honoured, refused with its name, or changes no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from client_fields import CHAT, TEXT, fields_of_servers
from flask_fakes import Chat, ScriptedRunner
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai_fakes import CALL, TOOLS, answer, ask, chunks_of, refusal, running_api, text_of

from chatstream_flask.openai_api.other_fields import HARMLESS, REFUSED, REFUSED_FOR_CHAT, REFUSED_FOR_TEXT
from chatstream_flask.openai_api.schema import ChatBody, CompletionBody

HONOURED = {CHAT: set(ChatBody.__struct_fields__), TEXT: set(CompletionBody.__struct_fields__)}
REFUSED_ON = {CHAT: REFUSED | REFUSED_FOR_CHAT, TEXT: REFUSED | REFUSED_FOR_TEXT}
OPENAI = {
    CHAT: (chat_params.CompletionCreateParamsStreaming, chat_params.CompletionCreateParamsNonStreaming),
    TEXT: (text_params.CompletionCreateParamsStreaming, text_params.CompletionCreateParamsNonStreaming),
}


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "Hi there")) as chat:
        yield chat


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_each_field_is_honoured_refused_or_harmless_and_only_one_of_these(path: str) -> None:
    fields = {name for kind in OPENAI[path] for name in get_type_hints(kind)} | fields_of_servers(path)
    kinds = (HONOURED[path], set(REFUSED_ON[path]), set(HARMLESS))
    assert {name: sum(name in kind for kind in kinds) for name in fields} == dict.fromkeys(fields, 1)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_refused_field_is_named_and_its_harmless_values_are_accepted(path: str, chat: Chat) -> None:
    for name, harmless in REFUSED_ON[path].items():
        error = refusal(ask(chat, path, **{name: {"other": [1]}}), 400)
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert error["message"].startswith(f"{name} is not supported")
        for value in (None, *harmless):
            answer(chat, path, **{name: value})


def test_harmless_fields_change_nothing(chat: Chat) -> None:
    fields: dict[str, Any] = dict.fromkeys(HARMLESS, "x")
    assert answer(chat, **fields)["choices"][0]["message"]["content"] == "Hi there"


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
        {"structured_outputs": {"json": {"type": "object"}}},
        {"structured_outputs": {"json": '{"type": "object"}'}},
        {"structured_outputs": {"json_object": True}},
        {"structured_outputs": {"regex": "[0-9]{3}/[a-z]"}},
        {"structured_outputs": {"choice": ["yes", 'n"o']}},
        {"structured_outputs": {"grammar": "start: /[0-9]+/"}},
        {"guided_json": '{"type": "object"}'},
        {"guided_regex": "[0-9]+"},
        {"guided_choice": ["yes", "no"]},
        {"guided_grammar": 'root ::= "yes" | "no"'},
        {"json_schema": {"type": "object"}},
        {"grammar": 'root ::= [0-9]+ "%"'},
        {"regex": "a|b"},
        {"ebnf": 'root ::= "yes"'},
        {"format": "json"},
        {"format": {"type": "object"}},
    ],
)
def test_formats_of_answers_under_all_their_names(path: str, fields: dict[str, Any], chat: Chat) -> None:
    """The scripted model follows no grammar; that there is one shows in the request."""
    answer(chat, path, **fields)
    assert [params.grammar is not None for params in chat.runner.params] == [True]
    answer(chat, path, response_format={"type": "text"}, structured_outputs={}, grammar="", format="")
    assert chat.runner.params[-1].grammar is None


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"regex": "a", "guided_json": {}}, "regex", "guided_json and regex both say"),
        ({"guided_json": "no JSON"}, "guided_json", "must be a JSON schema, not 'no JSON'"),
        ({"format": "[]"}, "format", "must be a JSON schema, not []"),
        ({"guided_choice": []}, "guided_choice", "expected array of length >= 1"),
        (
            {"structured_outputs": {"structural_tag": {}}},
            "structured_outputs.structural_tag",
            "not supported",
        ),
        ({"regex": "("}, None, "the regular expression cannot be used"),
        ({"grammar": "root ::= ("}, None, "the grammar cannot be used"),
        ({"grammar": "nothing"}, None, "the grammar cannot be used"),
        ({"grammar": '%llguidance {}\nstart: "a"'}, None, "%llguidance is not supported"),
        ({"grammar": "start: " + "(" * 20_000}, None, "the grammar cannot be used"),
        ({"grammar": f'root ::= "{"a" * 70_000}"'}, None, "the grammar has 70"),
        ({"regex": "a", "tools": TOOLS}, "regex", "regex cannot be combined with tools"),
    ],
)
def test_formats_that_cannot_be_used_are_400(
    fields: dict[str, Any], param: str | None, sentence: str, chat: Chat
) -> None:
    error = refusal(ask(chat, **fields), 400)
    assert sentence in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_stop_token_ends_a_reply(path: str, chat: Chat) -> None:
    (choice,) = answer(chat, path, stop_token_ids=[ord("t"), ord("x")])["choices"]
    assert (choice["text"] if path == TEXT else choice["message"]["content"]) == "Hi "
    assert choice["finish_reason"] == "stop"
    assert refusal(ask(chat, path, stop_token_ids=[-1]), 400)["param"] == "stop_token_ids[0]"


def test_a_reply_that_ignores_the_end_goes_on_to_its_limit(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "a\0b\0c\0")) as chat:
        assert answer(chat)["choices"][0]["message"]["content"] == "a"
        (choice,) = answer(chat, ignore_eos=True, max_tokens=5)["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("a\0b\0c", "length")


def test_without_parallel_calls_there_is_one_at_most(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: f"{CALL}\n{CALL}")) as chat:
        for parallel, num_calls in ((True, 2), (False, 1)):
            fields: dict[str, Any] = {"tools": TOOLS, "parallel_tool_calls": parallel}
            (choice,) = answer(chat, **fields)["choices"]
            assert len(choice["message"]["tool_calls"]) == num_calls
            chunks = chunks_of(ask(chat, stream=True, **fields))
            calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
            assert {call["index"] for call in calls} == set(range(num_calls))
            assert text_of(chunks) == ""
            assert choice["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_twenty_logprobs_of_a_text(chat: Chat) -> None:
    answer(chat, TEXT, logprobs=20)
    assert refusal(ask(chat, TEXT, logprobs=21), 400)["param"] == "logprobs"
    assert json.loads(ask(chat, TEXT, logprobs=0).text)["choices"][0]["logprobs"] is not None
