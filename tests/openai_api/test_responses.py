"""POST /v1/responses: items and events as OpenAI describes them, state in the store, who may see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from client_fields import RESPONSES as PATH
from client_fields import fields_of_servers
from flask.testing import FlaskClient
from flask_fakes import Chat, ScriptedRunner
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses import response_create_params as params
from openai_fakes import CALL, refusal, running_api
from pydantic import TypeAdapter

from chatstream_flask import ChatStream
from chatstream_flask.errors import StoreUnavailable
from chatstream_flask.openai_api.other_fields import HARMLESS as HARMLESS_ANYWHERE
from chatstream_flask.openai_api.parse_body import REFUSED_FIELDS
from chatstream_flask.openai_api.responses.schema import HARMLESS, ResponsesBody
from chatstream_flask.serving.app import create_app

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
KEYS = ["one-key-of-the-tests", "another-key-of-tests"]


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with running_api(tmp_path, ScriptedRunner(answer_of)) as chat:
        yield chat


def answer_of(prompt: str) -> str:
    return CALL if prompt.startswith("T:f") and "|T:" not in prompt else f"({prompt})"


def create(client: FlaskClient, given: Any, **fields: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"input": given} | fields)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.get_json()
    Response.model_validate(data)
    return data


def text_of(response: dict[str, Any]) -> str:
    return Response.model_validate(response).output_text


def events_of(client: FlaskClient, given: Any, **fields: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json={"input": given, "stream": True} | fields)
    assert response.content_type == "text/event-stream; charset=utf-8", response.text
    events = []
    for block in response.text.split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        EVENT.validate_python(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_a_response_follows_another_without_its_instructions(chat: Chat) -> None:
    client = chat.client()
    first = create(client, "Hello", instructions="Be kind", metadata={"a": "b"})
    assert text_of(first) == "(S:Be kind|U:Hello)" and first["status"] == "completed"
    assert first["metadata"] == {"a": "b"} and first["usage"]["output_tokens"] > 0
    second = create(client, "And?", previous_response_id=first["id"])
    assert text_of(second) == "(U:Hello|A:(S:Be kind|U:Hello)|U:And?)"
    assert second["previous_response_id"] == first["id"]
    branch = create(client, "Or?", previous_response_id=first["id"], instructions="Be brief")
    assert text_of(branch).startswith("(S:Be brief|U:Hello|A:")


def test_events_add_up_to_the_response_that_is_stored(chat: Chat) -> None:
    client = chat.client()
    events = events_of(client, "Hello")
    assert [event["type"] for event in events if not event["type"].endswith(".delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []
    assert events[2]["item"]["content"] == [] and events[3]["part"]["text"] == ""
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "(U:Hello)"
    last = events[-1]["response"]
    assert text_of(last) == "(U:Hello)"
    assert client.get(f"{PATH}/{last['id']}").get_json() == last


def test_a_call_and_its_result(chat: Chat) -> None:
    client = chat.client()
    events = events_of(client, "Hello", tools=[TOOL])
    pieces = [e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta"]
    response = events[-1]["response"]
    (call,) = response["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "f", "completed")
    assert "".join(pieces) == call["arguments"] and json.loads(call["arguments"]) == {"a": "１"}
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
    answer = create(client, [result], previous_response_id=response["id"], tools=[TOOL])
    assert "T:42" in text_of(answer)
    whole = create(client, [{"role": "user", "content": "Hello"}, call, result], tools=[TOOL])
    assert text_of(whole) == text_of(answer)  # the same without state


def test_what_is_cut_says_so(chat: Chat) -> None:
    response = create(chat.client(), "Hello", max_output_tokens=3)
    assert (response["status"], text_of(response)) == ("incomplete", "(U:")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


def test_reasoning_is_an_item_of_its_own_and_comes_back(tmp_path: Path) -> None:
    mock_params = {"type": "reasoning", "time_per_token_sec": 0}
    with closing(ChatStream(use_mock_response=True, mock_params=mock_params)) as chat_stream:
        client = create_app(chat_stream, {"CHATSTREAM_STORE_DIR": str(tmp_path)}).test_client()
        hello = {"role": "user", "content": "Hello"}
        events = events_of(client, [hello])
        kinds = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
        assert kinds == ["reasoning", "message"]
        response = events[-1]["response"]
        assert response["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        assert create(client, [hello, *response["output"], hello])["status"] == "completed"


def test_only_what_is_stored_can_be_found(chat: Chat) -> None:
    client = chat.client()
    kept = create(client, [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}])
    items = client.get(f"{PATH}/{kept['id']}/input_items").get_json()
    assert [item["content"][0]["text"] for item in items["data"]] == ["Hello"] and not items["has_more"]
    assert client.post(f"{PATH}/{kept['id']}/cancel").status_code == 400
    assert client.get(f"{PATH}/{kept['id']}?stream=true").status_code == 400
    assert client.delete(f"{PATH}/{kept['id']}").get_json()["deleted"] is True
    for response_id in (kept["id"], create(client, "Hello", store=False)["id"], "resp_x", "x" * 300):
        assert refusal(client.get(f"{PATH}/{response_id}"), 404)["code"] == "not_found"
        follow = client.post(PATH, json={"input": "And?", "previous_response_id": response_id})
        assert refusal(follow, 400)["param"] == "previous_response_id"


def test_a_response_belongs_to_its_key(tmp_path: Path) -> None:
    with running_api(tmp_path, config={"CHATSTREAM_API_KEYS": KEYS}) as chat:
        client = chat.client()
        owner, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        response = client.post(PATH, json={"input": "Hello"}, headers=owner).get_json()
        assert client.get(f"{PATH}/{response['id']}", headers=owner).status_code == 200
        for method in (client.get, client.delete):
            refusal(method(f"{PATH}/{response['id']}", headers=other), 404)
        body = {"input": "And?", "previous_response_id": response["id"]}
        refusal(client.post(PATH, json=body, headers=other), 400)
        assert client.post(PATH, json=body, headers=owner).status_code == 200


def test_it_survives_a_restart(tmp_path: Path) -> None:
    previous: dict[str, Any] = {}
    for _ in range(2):
        with running_api(tmp_path, ScriptedRunner(answer_of)) as chat:
            response = create(chat.client(), "Hello", **previous)
            previous = {"previous_response_id": response["id"]}
    assert text_of(response) == "(U:Hello|A:(U:Hello)|U:Hello)"


def test_a_store_that_fails_is_told_before_the_end(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(conversation_id: str) -> Any:
        raise StoreUnavailable("the disk is full")

    client = chat.client()
    monkeypatch.setattr(chat.chat_stream.store(chat.app), "hold", fail)
    assert events_of(client, "Hello")[-1]["type"] == "response.failed"
    assert refusal(client.post(PATH, json={"input": "Hello"}), 503)["type"] == "server_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"input": "a", "max_tokens": 5}, "max_tokens"),
        ({"input": "a", "stop": "b"}, "stop"),
        ({"input": "a", "suffix": "b"}, "suffix"),
        ({"input": "a", "truncation": "auto"}, "truncation"),
        ({"input": "x" * 10_000}, "input"),
    ],
)
def test_what_is_refused(chat: Chat, body: dict[str, Any], param: str) -> None:
    assert refusal(chat.client().post(PATH, json=body), 400)["param"] == param


def test_each_field_of_clients_is_of_one_kind() -> None:
    refused, harmless = set(REFUSED_FIELDS[ResponsesBody]), HARMLESS | HARMLESS_ANYWHERE
    kinds = (honoured := set(ResponsesBody.__struct_fields__), refused, harmless - honoured - refused)
    fields = {
        name
        for kind in (params.ResponseCreateParamsStreaming, params.ResponseCreateParamsNonStreaming)
        for name in get_type_hints(kind)
    } | fields_of_servers(PATH)
    counts = {name: sum(name in kind for kind in kinds) for name in fields}
    assert counts == dict.fromkeys(fields, 1)


def test_what_this_server_does_not_have_below_responses_is_not_found(chat: Chat) -> None:
    compact = chat.client().post(f"{PATH}/compact", json={"input": "Hello"})
    assert refusal(compact, 404)["code"] == "unknown_url"
