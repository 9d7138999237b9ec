"""The OpenAI-compatible API on a scripted model: answers, streams, errors, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fakes import TIMEOUT
from flask import Flask
from flask_fakes import FAIL, Chat, ScriptedRunner, running_chat
from openai_fakes import (
    CALL,
    HELLO,
    TOOLS,
    answer,
    ask,
    blocks_of,
    chunks_of,
    refusal,
    running_api,
    text_of,
)
from werkzeug.test import TestResponse

from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.reply_format.family import ReplyFormat


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    """Answers "Hi there" on 2 + 5."""
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "Hi there")) as chat:
        yield chat


# -- answers -------------------------------------------------------------------------------------------


def test_a_whole_answer(chat: Chat) -> None:
    got = answer(chat)
    assert got["object"] == "chat.completion"
    assert got["id"].startswith("chatcmpl-")
    assert got["model"] == "scripted"
    assert got["system_fingerprint"].startswith("fp_")
    (choice,) = got["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi there", "refusal": None},
        "finish_reason": "stop",
        "logprobs": None,
    }
    assert got["usage"] == {
        "prompt_tokens": len("U:Hello"),
        "completion_tokens": len("Hi there") + 1,
        "total_tokens": len("U:Hello") + len("Hi there") + 1,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_stream_begins_with_the_role_and_ends_with_done(chat: Chat) -> None:
    chunks = chunks_of(ask(chat, stream=True))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == "Hi there"
    assert choices[-1]["delta"] == {} and choices[-1]["finish_reason"] == "stop"
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert len({(chunk["id"], chunk["created"], chunk["system_fingerprint"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "usage" not in chunks[0]


def test_usage_is_the_last_chunk_if_asked_for(chat: Chat) -> None:
    *chunks, last = chunks_of(ask(chat, stream=True, stream_options={"include_usage": True}))
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert last["choices"] == []
    assert last["usage"] == answer(chat)["usage"]


def test_stream_headers_keep_proxies_from_collecting(chat: Chat) -> None:
    response = ask(chat, stream=True)
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "no-transform" in response.headers["Cache-Control"]
    response.close()


def test_choices_interleave_and_each_has_all_its_text(chat: Chat) -> None:
    chunks = chunks_of(ask(chat, stream=True, n=3))
    assert [text_of(chunks, index) for index in range(3)] == ["Hi there"] * 3
    assert len(answer(chat, n=3)["choices"]) == 3
    assert answer(chat, n=3)["usage"]["prompt_tokens"] == len("U:Hello")


def test_max_tokens_ends_an_answer_and_never_exceeds_the_constructors(chat: Chat) -> None:
    (choice,) = answer(chat, max_tokens=2)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "length")
    assert answer(chat, max_completion_tokens=100_000)["choices"][0]["finish_reason"] == "stop"


def test_stop_strings(chat: Chat) -> None:
    assert answer(chat, stop=["the", "zzz"])["choices"][0]["message"]["content"] == "Hi "
    assert answer(chat, stop="t")["choices"][0]["message"]["content"] == "Hi "


def test_a_completion_of_text(chat: Chat) -> None:
    got = answer(chat, "/v1/completions")
    assert got["object"] == "text_completion" and got["id"].startswith("cmpl-")
    assert got["choices"] == [{"index": 0, "text": "Hi there", "finish_reason": "stop", "logprobs": None}]
    assert chat.runner.prompts == ["Hello"]


def test_completions_of_several_texts(chat: Chat) -> None:
    chunks = chunks_of(ask(chat, "/v1/completions", prompt=["A", "BC"], n=2, stream=True))
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["Hi there"] * 4
    assert sorted(chat.runner.prompts) == ["A", "A", "BC", "BC"]
    assert answer(chat, "/v1/completions", prompt=["A", "BC"], n=2)["usage"]["prompt_tokens"] == 3


def test_an_empty_text_is_refused(chat: Chat) -> None:
    for prompt in ("", ["a", ""]):
        assert refusal(ask(chat, "/v1/completions", prompt=prompt), 400)["message"] == "the prompt is empty"
    assert "at most 8" in refusal(ask(chat, "/v1/completions", prompt=["a"] * 3, n=3), 400)["message"]


def test_logprobs_of_a_chat(chat: Chat) -> None:
    content = answer(chat, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == "Hi there"
    assert content[0] == {"token": "H", "logprob": 0.0, "bytes": [72], "top_logprobs": []}
    chunks = chunks_of(ask(chat, logprobs=True, stream=True))
    told = [c["logprobs"]["content"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert [entry for part in told for entry in part] == content


def test_logprobs_of_a_completion(chat: Chat) -> None:
    (choice,) = answer(chat, "/v1/completions", logprobs=0)["choices"]
    assert choice["logprobs"]["tokens"] == list("Hi there")
    assert choice["logprobs"]["text_offset"] == list(range(8))
    chunks = chunks_of(ask(chat, "/v1/completions", logprobs=0, stream=True))
    told = [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert [offset for part in told for offset in part["text_offset"]] == list(range(8))


def test_roles_and_text_parts_reach_the_model(chat: Chat) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    answer(chat, messages=messages)
    assert chat.runner.prompts == ["S:Be brief.|U:one\ntwo"]


def test_what_means_nothing_here_is_ignored(chat: Chat) -> None:
    answer(
        chat,
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        parallel_tool_calls=True,
        user="me",
        function_call=None,
        modalities=["text"],
        response_format=None,
        echo=False,
        made_up=[1],
    )


# -- tools ---------------------------------------------------------------------------------------------


def test_a_tool_call_whole_and_streamed(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "Let me see.\n" + CALL)) as chat:
        (choice,) = answer(chat, tools=TOOLS)["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "Let me see."
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "f", "arguments": '{"a": "１"}'}
        assert call["id"].startswith("call_") and call["type"] == "function"
        chunks = chunks_of(ask(chat, tools=TOOLS, stream=True))
        assert text_of(chunks) == "Let me see."
        (told,) = [c["choices"][0]["delta"] for c in chunks if "tool_calls" in c["choices"][0]["delta"]]
        assert told["tool_calls"][0]["index"] == 0
        assert told["tool_calls"][0]["function"] == call["function"]
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert chat.runner.prompts[0] == "T:f,g|U:Hello"


def test_without_tools_or_with_the_choice_none_marks_are_text(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: CALL)) as chat:
        not_allowed: dict[str, Any] = {"tools": TOOLS, "tool_choice": "none"}
        for fields in ({}, not_allowed):
            (choice,) = answer(chat, **fields)["choices"]
            assert choice["message"]["content"] == CALL
            assert choice["finish_reason"] == "stop"
        assert chat.runner.prompts == ["U:Hello"] * 2


def test_a_named_tool_gets_the_whole_reply_as_arguments(tmp_path: Path) -> None:
    choice = {"type": "function", "function": {"name": "g"}}
    with running_api(tmp_path, ScriptedRunner(lambda prompt: '{"a": 1}')) as chat:
        (got,) = answer(chat, tools=TOOLS, tool_choice=choice)["choices"]
        assert got["message"]["tool_calls"][0]["function"] == {"name": "g", "arguments": '{"a": 1}'}
        assert (got["message"]["content"], got["finish_reason"]) == (None, "tool_calls")
        chunks = chunks_of(ask(chat, tools=TOOLS, tool_choice=choice, stream=True))
        calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks[1:-1]]
        assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
        assert [call.get("id") is not None for call in calls] == [True] + [False] * (len(calls) - 1)


def test_one_of_several_required_tools(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: '{"name": "g", "arguments": {}}')) as chat:
        (got,) = answer(chat, tools=TOOLS, tool_choice="required")["choices"]
        assert got["message"]["tool_calls"][0]["function"] == {"name": "g", "arguments": "{}"}


def test_a_response_template_of_the_tokenizer_is_followed(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "<think>Hm.</think>Yes." + CALL)
    with running_api(tmp_path, runner) as chat:
        template: dict[str, Any] = {
            "defaults": {"role": "assistant"},
            "start_anchor": "A:",
            "fields": {
                "thinking": {"open": "<think>", "close": "</think>", "content": "text"},
                "content": {"content": "text"},
            },
        }
        chat.chat_stream.source.reply_format = ReplyFormat(template)
        (choice,) = answer(chat)["choices"]
        assert choice["message"]["content"] == "Yes." + CALL
        assert choice["message"]["reasoning_content"] == choice["message"]["reasoning"] == "Hm."
        chunks = chunks_of(ask(chat, stream=True))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
        assert text_of(chunks) == "Yes." + CALL
        assert runner.shown == {True}


def test_the_client_package_reads_streamed_calls(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: f"Wait.{CALL}\n{CALL}")) as chat:
        transport = openai.DefaultHttpxClient(transport=httpx2.WSGITransport(app=chat.app))
        with openai.OpenAI(base_url="http://host/v1", api_key="none", http_client=transport) as client:
            fields: dict[str, Any] = {"model": "scripted", "messages": HELLO, "tools": TOOLS}
            with client.chat.completions.stream(**fields) as events:
                streamed = events.get_final_completion().choices[0]
            whole = client.chat.completions.create(**fields).choices[0]
        for choice in (whole, streamed):
            assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Wait.")
            calls = choice.message.tool_calls or []
            assert [call.type == "function" and call.function.arguments for call in calls] == [
                '{"a": "１"}'
            ] * 2
            assert len({call.id for call in calls}) == 2


def test_results_of_tools_reach_the_model(chat: Chat) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    answer(chat, messages=messages, tools=TOOLS)
    assert chat.runner.prompts == ["T:f,g|U:Hello|A:|T:42"]


# -- the queue -----------------------------------------------------------------------------------------


def test_the_role_comes_before_the_wait_and_the_place_in_the_queue_as_a_comment(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True), num_of_concurrent_executions=1) as chat:
        first = blocks_of(ask(chat, stream=True))
        assert '"role": "assistant"' in next(first)
        second = blocks_of(ask(chat, stream=True))
        assert '"role": "assistant"' in next(second)
        assert next(block for block in second if block.endswith("1")) == ": queue position=1"
        chat.runner.release()
        assert list(first)[-1] == list(second)[-1] == "[DONE]"


def test_silence_is_broken_by_comments(tmp_path: Path) -> None:
    config = {"CHATSTREAM_HEARTBEAT_SEC": 0.01}
    with running_api(tmp_path, ScriptedRunner(is_held=True), config) as chat:
        blocks = blocks_of(ask(chat, stream=True))
        assert next(block for block in blocks if block.startswith(": keep")) == ": keep-alive"
        chat.runner.release()
        assert list(blocks)[-1] == "[DONE]"


def test_full_is_429_with_a_time_whatever_the_chat_api_says(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True), max_queue_size=1) as chat:
        streams = [ask(chat, stream=True) for _ in range(3)]
        response = ask(chat)
        assert refusal(response, 429)["code"] == "queue_full"
        assert 1 <= int(response.headers["Retry-After"]) <= 59
        for stream in streams:
            stream.close()


def test_a_key_is_a_visitor_with_limits(tmp_path: Path) -> None:
    config = {"CHATSTREAM_API_KEYS": ("a" * 16, "b" * 16), "CHATSTREAM_MAX_WAITING_PER_VISITOR": 0}
    with running_api(tmp_path, ScriptedRunner(is_held=True), config, num_of_concurrent_executions=1) as chat:

        def ask_as(key: str) -> TestResponse:
            body = {"model": "scripted", "messages": HELLO, "stream": True}
            headers = {"Authorization": f"Bearer {key * 16}"}
            return chat.client().post("/v1/chat/completions", json=body, headers=headers)

        stream = ask_as("a")
        assert refusal(ask_as("a"), 429)["code"] == "visitor_waiting"
        assert refusal(ask_as("b"), 429)["code"] == "visitor_waiting"  # there is one slot
        stream.close()
        assert chat.chat_stream.engine._queue.wait_until_empty(TIMEOUT)
        ask_as("b").close()


def test_choices_are_accepted_all_or_none(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True), max_queue_size=1) as chat:
        stream = ask(chat, stream=True)
        refusal(ask(chat, n=3), 429)
        assert chat.chat_stream.engine.num_accepted == 1
        assert "3 places" in refusal(ask(chat, n=4), 400)["message"]
        stream.close()


def test_a_refused_request_costs_no_rendering(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True), max_queue_size=0) as chat:
        streams = [ask(chat, stream=True) for _ in range(2)]

        def render(*args: Any) -> list[int]:
            raise AssertionError("a template was rendered for a request that has no place")

        chat.chat_stream.source.encode_messages = render  # type: ignore[method-assign, assignment]
        refusal(ask(chat), 429)
        for stream in streams:
            stream.close()


def test_a_stopped_server_is_503(chat: Chat) -> None:
    answer(chat)
    chat.chat_stream.engine.stop()
    response = ask(chat)
    assert refusal(response, 503)["code"] == "not_accepting"
    assert response.headers["Retry-After"] == "5"


# -- ends ----------------------------------------------------------------------------------------------


def test_closing_a_stream_ends_all_its_choices(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True)) as chat:
        stream = ask(chat, stream=True, n=4)
        next(blocks_of(stream))
        stream.close()
        assert chat.chat_stream.engine._queue.wait_until_empty(TIMEOUT)


def test_a_stream_that_nobody_reads_holds_nothing(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True)) as chat:
        ask(chat, stream=True).close()
        assert chat.chat_stream.engine._queue.wait_until_empty(TIMEOUT)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_has_gone_ends_its_answer(stream: bool, tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True)) as chat:
        body = {"model": "scripted", "messages": HELLO, "n": 3, "stream": stream}
        environ = {"waitress.client_disconnected": lambda: True}
        response = chat.client().post("/v1/chat/completions", json=body, environ_base=environ)
        assert response.status_code == (200 if stream else 499)
        assert b"DONE" not in response.data
        assert chat.chat_stream.engine._queue.wait_until_empty(TIMEOUT)


def test_a_fault_within_a_stream_is_told_in_it(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: "Hi" + FAIL)) as chat:
        *chunks, last = chunks_of(ask(chat, stream=True, n=2))
        assert last["error"]["code"] == "generation_failed"
        assert last["error"]["type"] == "server_error"
        assert last["error"]["message"] == "generation failed"
        assert "Hi".startswith(text_of(chunks))
        assert refusal(ask(chat), 500)["code"] == "generation_failed"


def test_a_stream_that_a_stop_cuts_says_so(tmp_path: Path) -> None:
    with running_api(tmp_path, ScriptedRunner(is_held=True)) as chat:
        response = ask(chat, stream=True)
        chat.chat_stream.engine.stop()
        assert chunks_of(response)[-1]["error"]["code"] == "not_accepting"


def test_an_answer_that_a_stop_cuts_is_503(tmp_path: Path) -> None:
    asked = threading.Event()

    def reply(prompt: str) -> str:
        asked.set()
        return "Hi"

    runner = ScriptedRunner(reply, is_held=True)
    with running_api(tmp_path, runner) as chat, ThreadPoolExecutor(1) as pool:
        answered = pool.submit(ask, chat)
        runner.allow()
        assert asked.wait(TIMEOUT)
        chat.chat_stream.engine.stop()
        assert refusal(answered.result(TIMEOUT), 503)["code"] == "not_accepting"


def test_an_answer_that_takes_too_long_is_503(tmp_path: Path) -> None:
    config = {"CHATSTREAM_REQUEST_TIMEOUT_SEC": 0.05}
    with running_api(tmp_path, ScriptedRunner(is_held=True), config) as chat:
        assert refusal(ask(chat), 503)["code"] == "timeout"


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"messages": []}, "messages", "messages: expected array of length >= 1"),
        ({"messages": HELLO * 4097}, "messages", "messages: expected array of length <= 4096"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role", "invalid enum value 'king'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "content is missing"),
        ({"temperature": 2.5}, "temperature", "temperature: expected float <= 2.0"),
        ({"temperature": "1"}, "temperature", "expected float | null, got str"),
        ({"top_p": 0}, "top_p", "expected float > 0.0"),
        ({"max_tokens": 0}, "max_tokens", "expected int >= 1"),
        ({"n": 9}, "n", "expected int <= 8"),
        ({"stop": list("abcde")}, "stop", "expected array of length <= 4"),
        ({"stop": ["x" * 257]}, "stop[0]", "expected str of length <= 256"),
        ({"frequency_penalty": 3}, "frequency_penalty", "expected float <= 2.0"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "must be a token id, not 'a'"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias", "length <= 1024"),
        ({"top_logprobs": 3}, "top_logprobs", "top_logprobs needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "expected int <= 20"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": TOOLS * 2}, "tools", "two tools have the same name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
        ({"chat_template": "x"}, "chat_template", "chat_template is not supported"),
        ({"functions": [{"name": "f"}]}, "functions", "functions is not supported"),
        ({"seed": 2**63}, "seed", "seed: expected int <= 9223372036854775807"),
    ],
)
def test_bad_fields_are_400_and_name_themselves(
    fields: dict[str, Any], param: str, sentence: str, chat: Chat
) -> None:
    error = refusal(ask(chat, **fields), 400)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert sentence in error["message"]
    assert chat.runner.prompts == []


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_only_text_is_read(kind: str, chat: Chat) -> None:
    messages = [{"role": "user", "content": [{"type": kind, kind: {"url": "http://127.0.0.1/"}}]}]
    error = refusal(ask(chat, messages=messages), 400)
    assert error["param"] == "messages[0].content[0].type"
    assert "reads text only" in error["message"]


def test_a_context_that_overflows_is_told_in_numbers(tmp_path: Path) -> None:
    with running_api(tmp_path, context_len=30, max_new_tokens=20) as chat:
        error = refusal(ask(chat, messages=[{"role": "user", "content": "x" * 28}]), 400)
        assert error["code"] == "context_length_exceeded"
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (30, 30)
        messages = [{"role": "user", "content": "x" * 9}]
        error = refusal(ask(chat, messages=messages, max_tokens=20), 400)
        assert error["code"] == "context_length_exceeded"
        assert "it has 11, and 20 more are asked for" in error["message"]
        chat.runner.reply = lambda prompt: "y" * 50
        (choice,) = answer(chat, messages=[{"role": "user", "content": "x" * 20}])["choices"]
        assert (len(choice["message"]["content"]), choice["finish_reason"]) == (8, "length")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b'{"model": "\\ud800"}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_400(body: bytes, chat: Chat) -> None:
    client = chat.client()
    refusal(client.post("/v1/chat/completions", data=body, content_type="application/json"), 400)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"model": "test", "prompt": "\xff"}', "the body is not UTF-8: invalid start byte"),
        (b'{"model": "test", "prompt": "\xed\xa0\x80"}', "the body is not UTF-8: "),
        (b'\xef\xbb\xbf{"model": "test"}', "the body begins with a byte order mark; send UTF-8 without one"),
        ('{"model": "test"}'.encode("utf-16"), "the body must be a JSON object: "),
        (b'{"model": "test", "seed": ' + b"1" * 5000 + b"}", ""),
    ],
)
def test_bytes_that_are_no_json_text_are_400(path: str, body: bytes, sentence: str, chat: Chat) -> None:
    answer = chat.client().post(f"/v1/{path}", data=body, content_type="application/json")
    assert refusal(answer, 400)["message"].startswith(sentence)


@pytest.mark.parametrize("keyword", ["maximum", "minLength", "const"])
@pytest.mark.parametrize("number", [10**309, -(10**309)])
def test_numbers_beyond_any_float_in_a_schema_are_400(keyword: str, number: int, chat: Chat) -> None:
    schema = {"type": "integer", keyword: number}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}
    for fields in ({"response_format": response_format}, {"tools": [tool], "tool_choice": "required"}):
        error = refusal(ask(chat, **fields), 400)
        assert "the JSON schema cannot be used: " in error["message"]


def test_deep_schemas_and_arguments_are_400(chat: Chat) -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"properties": {"a": deep}}
    schema = {"name": "x", "schema": deep}
    refusal(ask(chat, response_format={"type": "json_schema", "json_schema": schema}), 400)
    tools = [{"type": "function", "function": {"name": name, "parameters": deep}} for name in "fg"]
    refusal(ask(chat, tools=tools, tool_choice="required"), 400)


def test_other_errors_have_openais_shape(chat: Chat) -> None:
    client = chat.client()
    assert refusal(ask(chat, model="gpt-9"), 404)["code"] == "model_not_found"
    assert refusal(client.get("/v1/models/gpt-9"), 404)["code"] == "model_not_found"
    assert refusal(client.get("/v1/embeddings"), 404)["code"] == "unknown_url"
    response = client.get("/v1/chat/completions")
    assert refusal(response, 405)["code"] == "method_not_allowed"
    assert response.headers["Allow"] == "POST"
    refusal(client.post("/v1/chat/completions", data="x" * 10, content_type="text/plain"), 400)


@pytest.mark.parametrize(
    "path", ["", "/", "//x", "//chat/completions", "/%0A", "/x/%0Ay", "/models/", "/models/%0A"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_every_path_below_v1_has_errors_in_openais_format(path: str, method: str, chat: Chat) -> None:
    response = chat.app.test_client().open(f"/v1{path}", method=method)
    assert response.status_code in (404, 405) and response.content_type == "application/json"
    assert response.get_json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_413(tmp_path: Path) -> None:
    with running_api(tmp_path, config={"CHATSTREAM_MAX_BODY_LEN": 10}) as chat:
        assert refusal(ask(chat), 413)["code"] == "body_too_large"


def test_an_unforeseen_fault_is_500_and_says_nothing_of_it(chat: Chat) -> None:
    def fail(*args: Any) -> list[int]:
        raise KeyError("a secret")

    chat.chat_stream.source.encode_messages = fail  # type: ignore[method-assign, assignment]
    response = ask(chat)
    assert refusal(response, 500)["type"] == "server_error"
    assert "secret" not in response.text
    assert chat.chat_stream.engine.num_accepted == 0


# -- models and keys -----------------------------------------------------------------------------------


def test_models(chat: Chat) -> None:
    (model,) = chat.client().get("/v1/models").get_json()["data"]
    assert (model["id"], model["object"]) == ("scripted", "model")
    assert chat.client().get("/v1/models/scripted").get_json() == model


def test_a_model_may_have_several_names(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        names = ["acme/large", "small"]
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream, model_names=names))
        data = chat.client().get("/v1/models").get_json()["data"]
        assert [model["id"] for model in data] == names
        assert chat.client().get("/v1/models/acme/large").get_json() == data[0]
        assert answer(chat, model="small")["model"] == "small"
        refusal(ask(chat, model="scripted"), 404)


def test_every_route_needs_a_key_where_there_are_keys(tmp_path: Path) -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    config = {"CHATSTREAM_API_KEYS": ("the-first-of-two", f"sha256:{digest}")}
    with running_api(tmp_path, config=config) as chat:
        client = chat.client()
        for method, path in [
            ("post", "chat/completions"),
            ("get", "models"),
            ("get", "nothing"),
            ("put", "models"),
        ]:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic the-first-of-two"}):
                response = client.open(f"/v1/{path}", method=method.upper(), headers=given, json={})
                assert refusal(response, 401)["code"] == "invalid_api_key"
                assert response.headers["WWW-Authenticate"] == "Bearer"
        for key in ("the-first-of-two", "secret"):
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert (
            client.get("/v1/models", headers={"Authorization": f"Bearer sha256:{digest}"}).status_code == 401
        )
        assert client.options("/v1/models").status_code == 200  # a browser's question, without a key


def test_a_host_keeps_its_own_errors(tmp_path: Path) -> None:
    with running_api(tmp_path) as chat:
        app: Flask = chat.app
        response = app.test_client().get("/elsewhere")
        assert (response.status_code, response.mimetype) == (404, "text/html")
