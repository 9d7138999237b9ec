"""One question to each API that generates replies, and what its client then has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from flask_fakes import SSE, Chat, Event, ScriptedRunner, parse_event, running_chat
from werkzeug.test import TestResponse

from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.views import create_chat_blueprint

QUESTION = "Who are you?"


@dataclass
class Answer:
    """What a client has of a reply."""

    status: int
    text: str = ""
    error: str = ""  # its code
    words: str = ""  # of the error
    sources: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def every_api(folder: Path, runner: ScriptedRunner | None = None, **kwargs: Any) -> Iterator[Chat]:
    """Yield a chat with all APIs: the own one below /api, OpenAI's below /v1."""
    with running_chat(folder, runner, {"CHATSTREAM_PROBE_SEC": 0.005}, **kwargs) as chat:
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/api")
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        yield chat


def refused(response: TestResponse) -> Answer | None:
    if response.status_code == 200:
        return None
    body = response.get_json()
    if isinstance(body["error"], str):
        return Answer(response.status_code, error=body["error"], words=body["detail"])
    return Answer(response.status_code, error=body["error"]["code"], words=body["error"]["message"])


def own_events(response: TestResponse) -> list[Event]:
    return [parse_event(block) for block in response.text.split("\n\n")[:-1]]


def own_answer(events: list[Event]) -> Answer:
    text = "".join(event.data["text"] for event in events if event.name == "text")
    sources = [source for event in events if event.name == "sources" for source in event.data["sources"]]
    last = events[-1].data if events[-1].name == "error" else {}
    return Answer(200, text, last.get("code", ""), last.get("message", ""), sources)


def chat_stream(client: FlaskClient) -> Answer:
    response = client.post("/api/chat_stream", json={"user_input": QUESTION}, headers=SSE)
    return refused(response) or own_answer(own_events(response))


def ndjson(client: FlaskClient) -> Answer:
    accept = {"Accept": "application/x-ndjson"}
    response = client.post("/api/chat_stream", json={"user_input": QUESTION}, headers=accept)
    lines = [json.loads(line) for line in response.text.splitlines() if line]
    return refused(response) or own_answer([Event(line.pop("event"), None, line) for line in lines])


def resumed(client: FlaskClient) -> Answer:
    """Lose the connection at once and come back."""
    response = client.post("/api/chat_stream", json={"user_input": QUESTION}, headers=SSE)
    if answer := refused(response):
        return answer
    message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
    response.close()
    return own_answer(own_events(client.get(f"/api/chat_stream/{message_id}", headers=SSE)))


def post(client: FlaskClient, path: str, **body: Any) -> TestResponse:
    return client.post(f"/v1/{path}", json={"model": "scripted", **body})


MESSAGES = [{"role": "user", "content": QUESTION}]


def completion(client: FlaskClient) -> Answer:
    response = post(client, "chat/completions", messages=MESSAGES)
    if answer := refused(response):
        return answer
    message = response.get_json()["choices"][0]["message"]
    return Answer(
        200, message["content"] or "", sources=[citation(each) for each in message.get("annotations", [])]
    )


def citation(annotation: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation as a source."""
    found = annotation.get("url_citation", annotation)
    return {"title": found["title"]} | ({"url": found["url"]} if found["url"] else {})


def streamed_completion(client: FlaskClient) -> Answer:
    response = post(client, "chat/completions", messages=MESSAGES, stream=True)
    if answer := refused(response):
        return answer
    answer = Answer(200)
    for data in data_of(response):
        if "error" in data:
            return Answer(200, answer.text, data["error"]["code"], data["error"]["message"], answer.sources)
        delta = data["choices"][0]["delta"]
        answer.text += delta.get("content") or ""
        answer.sources += [citation(each) for each in delta.get("annotations", [])]
    return answer


def data_of(response: TestResponse) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_completion(client: FlaskClient) -> Answer:
    response = post(client, "completions", prompt=QUESTION)
    return refused(response) or Answer(200, response.get_json()["choices"][0]["text"])


def response_of(client: FlaskClient) -> Answer:
    response = post(client, "responses", input=QUESTION)
    return refused(response) or parts_of(response.get_json())


def streamed_response(client: FlaskClient) -> Answer:
    response = post(client, "responses", input=QUESTION, stream=True)
    if answer := refused(response):
        return answer
    events = data_of(response)
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    if error := events[-1]["response"]["error"]:
        return Answer(200, text, error["code"], error["message"])
    answer = parts_of(events[-1]["response"])
    assert answer.text == text
    return answer


def parts_of(response: dict[str, Any]) -> Answer:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    sources = [citation(each) for part in parts for each in part["annotations"]]
    return Answer(200, "".join(part["text"] for part in parts), sources=sources)


APIS: dict[str, Callable[[FlaskClient], Answer]] = {
    "chat_stream": chat_stream,
    "chat_stream as NDJSON": ndjson,
    "a resumed stream": resumed,
    "chat/completions": completion,
    "chat/completions streamed": streamed_completion,
    "completions": text_completion,
    "responses": response_of,
    "responses streamed": streamed_response,
}
