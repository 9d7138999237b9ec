"""The OpenAI API through OpenAI's client package, on waitress and gunicorn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field

from .client import TIMEOUT_SEC, SocketChat, wait_until
from .server import REPOSITORY, Server, start, start_mock

pytestmark = pytest.mark.server

DEMO = "demo_model"
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "greet", "parameters": PERSON}}
WITH_TOOLS = (  # made up, as the demo model has not learned tools
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}{% for m in messages %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)


def client_of(server: Server, **options: Any) -> OpenAI:
    chosen: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": TIMEOUT_SEC} | options
    return OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", **chosen)


@pytest.fixture
def client(demo_server: Server) -> Iterator[OpenAI]:
    """Return a client of the demo model; afterwards the server must be idle."""
    with client_of(demo_server) as client:
        yield client
    demo_server.check_idle()


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def ask(client: OpenAI, text: str, **fields: Any) -> str:
    answer = client.chat.completions.create(model=DEMO, messages=user(text), **fields)
    return answer.choices[0].message.content or ""


def stream(client: OpenAI, text: str, **fields: Any) -> list[ChatCompletionChunk]:
    with client.chat.completions.create(model=DEMO, messages=user(text), stream=True, **fields) as chunks:
        return list(chunks)


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [DEMO]
    assert client.models.retrieve(DEMO).id == DEMO
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_a_chat_of_several_turns_whole_and_streamed(client: OpenAI) -> None:
    messages: list[Any] = user("My name is Hanako.")
    first = client.chat.completions.create(model=DEMO, messages=messages)
    messages += [first.choices[0].message, *user("What is my name?")]
    second = client.chat.completions.create(model=DEMO, messages=messages)
    assert "Hanako" in (second.choices[0].message.content or "")
    with client.chat.completions.create(model=DEMO, messages=messages, stream=True) as chunks:
        told = list(chunks)
    assert text_of(told) == second.choices[0].message.content
    assert told[0].choices[0].delta.role == "assistant"
    assert told[-1].choices[0].finish_reason == "stop"


def test_a_completion_of_text(client: OpenAI) -> None:
    prompt = "<|user|>What is the capital of France?<|end|><|assistant|>"
    whole = client.completions.create(model=DEMO, prompt=prompt)
    assert "Paris" in whole.choices[0].text
    with client.completions.create(model=DEMO, prompt=prompt, stream=True) as chunks:
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_usage_counts_the_same_whole_and_streamed(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=DEMO, messages=user("Hello!"))
    last = stream(client, "Hello!", stream_options={"include_usage": True})[-1]
    assert last.choices == []
    assert last.usage is not None and whole.usage is not None
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens > 1
    assert last.usage.completion_tokens == whole.usage.completion_tokens > 1
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_the_next_turn_computes_only_what_is_new(client: OpenAI) -> None:
    messages: list[Any] = user("My favourite colour is green.")
    first = client.chat.completions.create(model=DEMO, messages=messages, user="one")
    messages += [first.choices[0].message, *user("What is my favourite colour?")]
    cached = {}
    for name in ("one", "two"):
        usage = client.chat.completions.create(model=DEMO, messages=messages, user=name).usage
        assert usage is not None and usage.prompt_tokens_details is not None
        cached[name] = usage.prompt_tokens_details.cached_tokens or 0
    assert first.usage is not None
    assert cached["one"] >= first.usage.prompt_tokens > cached["two"]


def test_stop_and_max_tokens(client: OpenAI) -> None:
    whole = ask(client, "What is the capital of France?")
    assert ask(client, "What is the capital of France?", stop=[" of"]) == whole.partition(" of")[0]
    chunks = stream(client, "What is the capital of France?", max_completion_tokens=3)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert whole.startswith(text_of(chunks)) and text_of(chunks) != whole


def test_a_seed_gives_the_same_choices_again_and_each_is_another(client: OpenAI) -> None:
    def tell() -> list[str]:
        answer = client.chat.completions.create(
            model=DEMO, messages=user("Tell me a story."), n=4, seed=7, temperature=1.5, max_tokens=24
        )
        return [choice.message.content or "" for choice in answer.choices]

    told = tell()
    assert tell() == told
    assert len(set(told)) > 1
    options = {"n": 4, "seed": 7, "temperature": 1.5, "max_tokens": 24}
    chunks = stream(client, "Tell me a story.", **options)
    assert [text_of(chunks, index) for index in range(4)] == told


def test_logprobs(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": DEMO, "messages": user("Hello!"), "logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**fields).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    for entry in choice.logprobs.content:  # greedy: the chosen token is the most likely one
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert entry.token == entry.top_logprobs[0].token
    text = client.completions.create(model=DEMO, prompt="Hello", logprobs=2, max_tokens=4).choices[0]
    assert text.logprobs is not None and text.logprobs.top_logprobs is not None
    assert [len(top) for top in text.logprobs.top_logprobs] == [2] * len(text.logprobs.tokens or [])


def test_a_bias_forbids_a_token(client: OpenAI) -> None:
    choice = client.chat.completions.create(model=DEMO, messages=user("Hello!"), logprobs=True).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    first = choice.logprobs.content[0].token
    ids = {i: -100 for i in range(1000)}
    with pytest.raises(openai.BadRequestError, match="logit_bias contains token id 1000"):
        ask(client, "Hello!", logit_bias={str(i): bias for i, bias in {**ids, 1000: 1}.items()})
    without = ask(client, "Hello!", logit_bias={str(i): -100 for i in range(100, 1000)})
    assert not without.startswith(first) or len(first) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_json_schema_always_parses(seed: int, client: OpenAI) -> None:
    schema = {"name": "person", "schema": PERSON, "strict": True}
    text = ask(
        client,
        "Who are you?",
        response_format={"type": "json_schema", "json_schema": schema},
        seed=seed,
        temperature=1.5,
    )
    person = json.loads(text)
    assert set(person) == {"name", "age"}
    assert isinstance(person["name"], str) and isinstance(person["age"], int)


def test_a_context_that_overflows_and_other_mistakes(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "long " * 2000)
    assert caught.value.code == "context_length_exceeded"
    assert isinstance(caught.value.body, dict) and caught.value.body["n_ctx"] == 1024
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Hello!", temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=user("Hello!"))
    with pytest.raises(openai.BadRequestError, match="use_beam_search is not supported"):
        ask(client, "Hello!", extra_body={"use_beam_search": True})


def test_tools_for_a_template_that_knows_none(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "greet"}}
    fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": choice, "seed": 5}
    answer = client.chat.completions.create(model=DEMO, messages=user("Hello!"), **fields).choices[0]
    (call,) = answer.message.tool_calls or []
    assert call.type == "function" and "name" in json.loads(call.function.arguments)


def has_begun(chat: SocketChat) -> bool:
    return bool(chat.events)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_full_server_is_asked_again_after_the_time_that_it_names(
    is_streamed: bool, demo_server: Server
) -> None:
    statuses: list[tuple[int, str | None]] = []

    def note(response: Any) -> None:
        statuses.append((response.status_code, response.headers.get("Retry-After")))

    with ExitStack() as stack, ThreadPoolExecutor(1) as thread:
        http_client = openai.DefaultHttpxClient(event_hooks={"response": [note]})
        client = stack.enter_context(client_of(demo_server, max_retries=20, http_client=http_client))
        demo_server.hold()
        try:
            for _ in range(7):
                stack.enter_context(closing(SocketChat(demo_server.port))).read_until(has_begun)
            get: Callable[..., Any] = (lambda c, t: text_of(stream(c, t))) if is_streamed else ask
            answer = thread.submit(get, client, "What is the capital of France?")
            wait_until(lambda: bool(statuses))
        finally:
            demo_server.release()
        assert "Paris" in answer.result(TIMEOUT_SEC)
    status, seconds = statuses[0]
    assert status == 429 and 1 <= int(seconds or 0) <= 59
    assert statuses[-1][0] == 200
    demo_server.check_idle()


def test_the_program_of_the_docs_prints_an_answer(
    demo_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program is run unchanged except for the port."""
    programs = re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs" / "openai-api.md").read_text(), re.DOTALL
    )
    (program,) = [program for program in programs if "from openai import OpenAI" in program]
    exec(program.replace(":3000/", f":{demo_server.port}/"), {})
    assert "Paris" in capsys.readouterr().out


def test_cancelling_a_stream_frees_its_slot_at_once(long_server: Server) -> None:
    long_server.check_idle()
    with client_of(long_server) as client:
        chunks = client.chat.completions.create(model="mock", messages=user("Hello!"), stream=True, n=2)
        first = next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        assert first.choices[0].delta.content == "At"
        assert long_server.has(running=2)
        chunks.close()
        long_server.check_idle()


def test_a_whole_answer_ends_with_its_client(long_server: Server) -> None:
    with client_of(long_server, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="mock", messages=user("Hello!"))
    long_server.check_idle()


def test_ten_at_once_get_answers_as_if_alone(client: OpenAI, demo_server: Server) -> None:
    asked: list[dict[str, Any]] = [
        {"text": "What is the capital of France?"},
        {"text": "What is the capital of Japan?", "temperature": 0.7, "seed": 1},
        {"text": "Tell me a story.", "temperature": 1.3, "top_p": 0.8, "seed": 2},
        {"text": "Hello!", "frequency_penalty": 1.5},
        {"text": "Count to five.", "repetition_penalty": 1.3},
        {"text": "Hello!", "temperature": 1.5, "top_k": 5, "seed": 3, "max_tokens": 9},
        {"text": "私の名前は花子です。"},
        {"text": "Tell me a story.", "stop": ["."]},
        {
            "text": "Hello!",
            "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}},
        },
        {"text": "Tell me a story.", "min_p": 0.2, "temperature": 1.2, "seed": 4, "presence_penalty": 0.5},
    ]
    for fields in asked:  # fields that OpenAI does not have go in extra_body
        names = fields.keys() & {"top_k", "repetition_penalty", "min_p"}
        if extra := {name: fields.pop(name) for name in names}:
            fields["extra_body"] = extra
    alone = [ask(client, **fields) for fields in asked]
    with client_of(demo_server, max_retries=30) as patient, ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda fields: ask(patient, **fields), asked))
        streamed = list(threads.map(lambda fields: text_of(stream(patient, **fields)), asked))
    assert together == alone
    assert streamed == alone


def test_a_key_is_needed_where_there_are_keys(kind: str, tmp_path: Path) -> None:
    config = {"CHATSTREAM_API_KEYS": ["right-" * 3]}
    with start_mock(kind, tmp_path, {"type": "echo", "time_per_token_sec": 0.0}, config=config) as server:
        with (
            client_of(server, api_key="wrong") as client,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        with client_of(server, api_key="right-" * 3) as client:
            answer = client.chat.completions.create(model="mock", messages=user("Say it."))
            assert answer.choices[0].message.content == "Say it."


def test_a_tool_that_must_be_called_is_called_with_valid_arguments(tmp_path: Path) -> None:
    with start("waitress", tmp_path, chat_template=WITH_TOOLS) as server, client_of(server) as client:
        for choice in ("required", {"type": "function", "function": {"name": "greet"}}):
            fields: dict[str, Any] = {"tools": [TOOL], "tool_choice": choice, "seed": 5}
            messages = user("My name is Hanako.")
            answer = client.chat.completions.create(model=DEMO, messages=messages, **fields).choices[0]
            assert answer.finish_reason == "tool_calls"
            assert answer.message.tool_calls is not None
            (call,) = answer.message.tool_calls
            assert call.type == "function" and call.function.name == "greet"
            assert set(json.loads(call.function.arguments)) == {"name", "age"}
            with client.chat.completions.stream(model=DEMO, messages=messages, **fields) as events:
                final = events.get_final_completion().choices[0].message
            assert final.tool_calls is not None
            assert final.tool_calls[0].function.arguments == call.function.arguments


class Person(BaseModel):
    """The same as PERSON."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def test_openais_helpers_parse_calls_and_answers(client: OpenAI) -> None:
    tool = openai.pydantic_function_tool(Person, name="greet")
    called = client.chat.completions.parse(
        model=DEMO, messages=user("Hello!"), tools=[tool], tool_choice="required"
    )
    (call,) = called.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Person)
    answer = client.responses.parse(model=DEMO, input="Hello!", text_format=Person)
    assert isinstance(answer.output_parsed, Person)


def test_responses_remember_what_came_before(client: OpenAI) -> None:
    with client.responses.stream(model=DEMO, input="Hello!", temperature=0) as stream:
        first = stream.until_done().get_final_response()
    assert first.output_text == ask(client, "Hello!", temperature=0)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(
        input="How are you?", previous_response_id=first.id, model=DEMO, temperature=0
    )
    messages = [*user("Hello!"), {"role": "assistant", "content": first.output_text}, *user("How are you?")]
    same = client.chat.completions.create(model=DEMO, messages=messages, temperature=0)
    assert second.output_text == same.choices[0].message.content
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
