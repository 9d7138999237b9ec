"""Responses of background mode: they go on without a client, and can be read, resumed and cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_fields import RESPONSES as PATH
from fakes import wait_until
from flask.testing import FlaskClient
from flask_fakes import Chat, ScriptedRunner
from openai.types.responses import Response, ResponseStreamEvent
from openai_fakes import refusal, running_api
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
KEYS = ["one-key-of-the-tests", "another-key-of-tests"]
TEXT = "(U:Hello)"


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with running_api(tmp_path, ScriptedRunner(lambda prompt: f"({prompt})", is_held=True)) as chat:
        yield chat
        chat.runner.release()


def create(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"input": "Hello", "background": True} | fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def get(client: FlaskClient, response_id: str) -> dict[str, Any]:
    response = client.get(f"{PATH}/{response_id}")
    assert response.status_code == 200, response.text
    Response.model_validate(response.get_json())
    return dict(response.get_json())


def text_of(response: dict[str, Any]) -> str:
    return Response.model_validate(response).output_text


def wait_for(client: FlaskClient, response_id: str, status: str) -> dict[str, Any]:
    wait_until(lambda: get(client, response_id)["status"] == status)
    return get(client, response_id)


def events_of(response: TestResponse, num: int | None = None) -> list[dict[str, Any]]:
    """Return the first `num` events, and leave; without a number all."""
    assert response.content_type == "text/event-stream; charset=utf-8", response.text
    events: list[dict[str, Any]] = []
    for chunk in response.iter_encoded():
        data = [line[6:] for line in chunk.decode().splitlines() if line.startswith("data: ")]
        events += map(json.loads, data)
        if num is not None and len(events) >= num:
            break
    response.close()
    for event in events:
        EVENT.validate_python(event)
    return events[:num]


def test_it_is_generated_and_stored_without_a_client(chat: Chat) -> None:
    client = chat.client()
    created = create(client)
    assert created["status"] in ("queued", "in_progress") and created["background"] is True
    assert created["output"] == []
    chat.runner.allow(3)
    wait_until(lambda: text_of(get(client, created["id"])) == "(U:")
    assert get(client, created["id"])["status"] == "in_progress"
    follow = client.post(PATH, json={"input": "And?", "previous_response_id": created["id"]})
    assert refusal(follow, 400)["code"] == "response_in_progress"
    chat.runner.release()
    done = wait_for(client, created["id"], "completed")
    assert text_of(done) == TEXT and done["usage"]["output_tokens"] == len(TEXT) + 1
    after = create(client, input="And?", previous_response_id=created["id"])
    assert text_of(wait_for(client, after["id"], "completed")) == f"(U:Hello|A:{TEXT}|U:And?)"


def test_a_stream_that_broke_off_is_resumed_after_any_event(chat: Chat) -> None:
    client = chat.client()
    chat.runner.allow(2)
    first = events_of(client.post(PATH, json={"input": "Hello", "background": True, "stream": True}), 4)
    assert [event["type"] for event in first[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    path = f"{PATH}/{first[0]['response']['id']}?stream=true"
    resumed = client.get(f"{path}&starting_after=1")
    chat.runner.release()
    rest = events_of(resumed)
    assert [event["sequence_number"] for event in rest] == list(range(2, 2 + len(rest)))
    assert rest[0] == first[2] and rest[-1]["type"] == "response.completed"
    assert text_of(rest[-1]["response"]) == TEXT
    assert "".join(e["delta"] for e in rest if e["type"] == "response.output_text.delta") == TEXT
    whole = events_of(client.get(path))
    assert whole[: len(first)] == first and whole[2:] == rest
    assert events_of(client.get(f"{path}&starting_after={len(whole) - 1}")) == []


def test_later_a_stream_has_the_last_event_with_the_whole_response(tmp_path: Path) -> None:
    with running_api(tmp_path, config={"CHATSTREAM_RESUME_SEC": 0}) as chat:
        client = chat.client()
        events = events_of(client.post(PATH, json={"input": "Hello", "background": True, "stream": True}))
        path = f"{PATH}/{events[-1]['response']['id']}?stream=true"
        assert events_of(client.get(path)) == events[-1:]
        assert refusal(client.get(f"{path}&starting_after=x"), 400)["param"] == "starting_after"


def test_it_is_cancelled_with_what_it_has(chat: Chat) -> None:
    client = chat.client()
    response_id = create(client)["id"]
    chat.runner.allow(3)
    wait_until(lambda: text_of(get(client, response_id)) == "(U:")
    for _ in range(2):
        cancelled = client.post(f"{PATH}/{response_id}/cancel").get_json()
        assert (cancelled["status"], text_of(cancelled)) == ("cancelled", "(U:")
    assert get(client, response_id) == cancelled
    assert events_of(client.get(f"{PATH}/{response_id}?stream=true"))[-1]["response"] == cancelled
    chat.check_idle()


def test_one_that_is_deleted_ends(chat: Chat) -> None:
    client = chat.client()
    response_id = create(client)["id"]
    assert client.delete(f"{PATH}/{response_id}").status_code == 200
    assert refusal(client.get(f"{PATH}/{response_id}"), 404)["code"] == "not_found"
    chat.check_idle()


def test_one_that_waits_can_be_cancelled(chat: Chat) -> None:
    client = chat.client()
    *_, waiting = [create(client)["id"] for _ in range(3)]
    assert get(client, waiting)["status"] == "queued"
    assert client.post(f"{PATH}/{waiting}/cancel").get_json()["status"] == "cancelled"


def test_it_belongs_to_its_key(tmp_path: Path) -> None:
    with running_api(tmp_path, config={"CHATSTREAM_API_KEYS": KEYS}) as chat:
        client = chat.client()
        owner, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        created = client.post(PATH, json={"input": "Hello", "background": True}, headers=owner).get_json()
        for path in ("", "?stream=true"):
            assert client.get(f"{PATH}/{created['id']}{path}", headers=owner).status_code == 200
            refusal(client.get(f"{PATH}/{created['id']}{path}", headers=other), 404)
        refusal(client.post(f"{PATH}/{created['id']}/cancel", headers=other), 404)


def test_one_whose_server_was_killed_has_failed(tmp_path: Path) -> None:
    """Its record says that it runs, and nobody holds its lease."""
    with running_api(tmp_path, config={"CHATSTREAM_RESUME_SEC": 0}) as chat:
        client, store = chat.client(), chat.chat_stream.store(chat.app)
        response_id = create(client)["id"]
        wait_for(client, response_id, "completed")
        record = store.load(response_id)
        assert record is not None
        lease = store.hold(response_id)
        record["response"] |= {"status": "in_progress"}
        lease.save(record)
        assert get(client, response_id)["status"] == "in_progress"  # another server has it
        assert client.get(f"{PATH}/{response_id}?stream=true").status_code == 409
        assert client.post(f"{PATH}/{response_id}/cancel").status_code == 409
        lease.close()
        failed = get(client, response_id)
        assert failed["status"] == "failed" and failed["error"]["code"] == "server_error"
        (event,) = events_of(client.get(f"{PATH}/{response_id}?stream=true"))
        assert event["type"] == "response.failed" and event["response"] == failed


def test_one_of_a_server_that_stops_says_so(tmp_path: Path) -> None:
    runner = ScriptedRunner(lambda prompt: "never", is_held=True)
    with running_api(tmp_path, runner) as chat:
        response_id = create(chat.client())["id"]
    with running_api(tmp_path) as chat:
        response = get(chat.client(), response_id)
        assert response["status"] == "failed" and "stopping" in response["error"]["message"]


def test_what_is_not_in_the_background(chat: Chat) -> None:
    client = chat.client()
    refused = client.post(PATH, json={"input": "Hello", "background": True, "store": False})
    assert refusal(refused, 400)["param"] == "background"
    chat.runner.release()
    response_id = create(client, background=False)["id"]
    assert refusal(client.get(f"{PATH}/{response_id}?stream=true"), 400)["param"] == "stream"
    assert refusal(client.post(f"{PATH}/{response_id}/cancel"), 400)["code"] == "unsupported_value"
