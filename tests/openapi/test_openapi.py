"""The OpenAPI document describes every route, and the answers are as it says."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from chatstream_flask import ChatStream
from chatstream_flask.chat.chat_request import FIELDS, SESSION_FIELDS
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.openapi.document import described_rules
from chatstream_flask.serving.app import create_app
from chatstream_flask.views import create_chat_blueprint

FUZZ_EXAMPLES = os.environ.get("CHATSTREAM_FUZZ_EXAMPLES")  # for each method of each route
NOT_PROMISED: list[Any] = [positive_data_acceptance]  # schemas do not say how fields exclude each other
UNDESCRIBED = {"chatstream_openai.no_route"}  # it answers paths that do not exist


def make_chat_stream() -> ChatStream:
    return ChatStream(use_mock_response=True, mock_params={"initial_wait_sec": 0, "time_per_token_sec": 0})


def make_app(chat_stream: ChatStream, folder: Path) -> Flask:
    config = {"CHATSTREAM_STATUS": "open", "CHATSTREAM_METRICS": "open", "CHATSTREAM_STORE_DIR": str(folder)}
    return create_app(chat_stream, config, exclude=())


def described(app: Flask, prefix: str = "") -> Any:
    return app.test_client().get(f"{prefix}/openapi.json").json


def test_every_route_is_described(tmp_path: Path) -> None:
    app = make_app(make_chat_stream(), tmp_path)
    endpoints = {rule.endpoint for rule, _ in described_rules(app)}
    assert {rule.endpoint for rule in app.url_map.iter_rules()} - endpoints == UNDESCRIBED
    paths = described(app)["paths"]
    assert set(paths["/chat_stream/{message_id}"]) == {"get"}
    assert set(paths["/v1/chat/completions"]) == {"post"}


def test_other_prefixes_and_instances_are_described_where_they_are(tmp_path: Path) -> None:
    app = Flask("host", instance_path=str(tmp_path))
    app.secret_key = "a-secret-key-of-tests"
    for name in ("default", "large"):
        chat_stream = ChatStream(use_mock_response=True, name=name)
        app.register_blueprint(create_chat_blueprint(chat_stream, ["chat_stream", "openapi"]))
        app.register_blueprint(create_openai_blueprint(chat_stream, url_prefix=f"/{name}/api"))
        chat_stream.init_app(app)
    paths = described(app, "/large")["paths"]
    assert {"/chat_stream", "/large/chat_stream", "/default/api/models", "/large/api/models"} <= set(paths)


def test_bodies_have_the_fields_that_are_accepted(tmp_path: Path) -> None:
    schemas = described(make_app(make_chat_stream(), tmp_path))["components"]["schemas"]
    assert set(schemas["ChatRequest"]["properties"]) == FIELDS
    assert set(schemas["GenerationParams"]["properties"]) == SESSION_FIELDS
    assert "messages" in schemas["ChatBody"]["required"]


# The client of schemathesis does not close the files that a response has.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_answers_are_as_described(tmp_path: Path) -> None:
    """Whatever is sent, no answer has a status of 500 or a body that the document does not allow."""
    with closing(make_chat_stream()) as chat_stream:
        document = schemathesis.openapi.from_wsgi("/openapi.json", make_app(chat_stream, tmp_path))
        results: Any = document.get_all_operations()
        num_requests = [check_answers(result.ok()) for result in results]
    assert len(num_requests) >= 23 and min(num_requests) > 0
    print(sum(num_requests), "requests")


STREAMED = [
    ("/chat_stream", {"user_input": "Hi"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}),
    ("/v1/completions", {"prompt": "Hi", "stream": True}),
    ("/v1/responses", {"input": "Hi", "stream": True}),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("path", "body"), STREAMED)
def test_events_are_as_described(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """Generated bodies are seldom those of a stream."""
    with closing(make_chat_stream()) as chat_stream:
        document = schemathesis.openapi.from_wsgi("/openapi.json", make_app(chat_stream, tmp_path))
        headers = {"Accept": "text/event-stream"}
        case = document[path]["POST"].Case(body=body, headers=headers, media_type="application/json")
        response = case.call_and_validate(excluded_checks=NOT_PROMISED)
    assert response.headers["content-type"] == ["text/event-stream; charset=utf-8"]


def check_answers(operation: Any) -> int:
    """Return the number of requests that were sent."""
    num_requests = 0

    @given(case=operation.as_strategy())
    @settings(
        max_examples=int(FUZZ_EXAMPLES or 10),
        deadline=None,
        derandomize=FUZZ_EXAMPLES is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        nonlocal num_requests
        num_requests += 1
        case.call_and_validate(excluded_checks=NOT_PROMISED)

    check()
    return num_requests
