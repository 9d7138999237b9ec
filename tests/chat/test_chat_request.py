"""Bad input gets a clear 4xx response and changes nothing."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from flask_fakes import Chat, running_chat, say, talk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatstream_flask import ChatStream
from chatstream_flask.chat.chat_request import parse_chat_request
from chatstream_flask.config import SamplingParams
from chatstream_flask.errors import BadRequest

DEFAULTS = SamplingParams(max_new_tokens=100)
HUGE = 10**400
DEEP = b'{"user_input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NESTED = b'{"regenerate": ' + b"[" * 900 + b"]" * 900 + b"}"

BAD: list[tuple[Any, str]] = [
    (b"", "the body must be a JSON object: "),
    (b"hello", "the body must be a JSON object: "),
    (b'{"user_input": "hi"', "the body must be a JSON object: "),
    (b'{"user_input": "\xff"}', "the body is not UTF-8: invalid start byte"),
    (b'{"user_input": "hi", "seed": 1' + b"0" * 5000 + b"}", "the body must be a JSON object: "),
    (DEEP, "the body must be a JSON object: "),
    (NESTED, ""),
    (b'["hi"]', "the body must be a JSON object, not list"),
    (b'"hi"', "the body must be a JSON object, not str"),
    (b"null", "the body must be a JSON object, not NoneType"),
    (b"5", "the body must be a JSON object, not int"),
    ({}, "user_input is missing"),
    ({"user_input": None}, "user_input is missing"),
    ({"user_input": ""}, "user_input is empty"),
    ({"user_input": " \n\t\u3000"}, "user_input is empty"),
    ({"user_input": ["hi"]}, "user_input must be a string"),
    ({"user_input": 5}, "user_input must be a string"),
    ({"user_input": 5, "regenerate": True}, "user_input must be a string"),
    ({"user_input": "x" * 201}, "user_input has 201 characters; at most 200 are allowed"),
    ({"user_input": "\ud83d"}, "user_input has an unpaired surrogate"),
    ({"user_input": "a\x00b"}, "user_input has a NUL character"),
    ({"user_input": "hi", "regenerate": "True"}, "regenerate must be true or false, not 'True'"),
    ({"user_input": "hi", "regenerate": 1}, "regenerate must be true or false, not 1"),
    ({"user_input": "hi", "regenerate": None}, "regenerate must be true or false, not None"),
    ({"regenerate": True}, "there is no reply to regenerate in this conversation yet"),
    ({"user_input": "hi", "tempature": 1}, "unknown field tempature; allowed: chat_template_kwargs, "),
    ({"user_input": "hi", "\ud83d": 1}, "unknown field '\\ud83d'; allowed: "),
    ({"user_input": "hi", "model": "gpt", "stream": True}, "unknown field model, stream; allowed: "),
    (b'{"user_input": "hi", "temperature": NaN}', "NaN is not JSON"),
    (b'{"user_input": "hi", "temperature": -Infinity}', "-Infinity is not JSON"),
    (b'{"user_input": "hi", "temperature": 1e999}', "temperature must be between 0 and 2, not inf"),
    ({"user_input": "hi", "temperature": 2.5}, "temperature must be between 0 and 2, not 2.5"),
    ({"user_input": "hi", "temperature": HUGE}, "temperature must be between 0 and 2, not 1000"),
    ({"user_input": "hi", "temperature": True}, "temperature must be a number, not True"),
    ({"user_input": "hi", "temperature": "1"}, "temperature must be a number, not '1'"),
    ({"user_input": "hi", "temperature": None}, "temperature must be a number, not None"),
    ({"user_input": "hi", "top_k": -1}, "top_k must be at least 0, not -1"),
    ({"user_input": "hi", "top_k": False}, "top_k must be a whole number, not False"),
    ({"user_input": "hi", "top_k": 1.5}, "top_k must be a whole number, not 1.5"),
    ({"user_input": "hi", "top_p": 0}, "top_p must be above 0, not 0"),
    ({"user_input": "hi", "top_p": [1]}, "top_p must be a number, not [1]"),
    ({"user_input": "hi", "repetition_penalty": -1}, "repetition_penalty must be between 0.01 and 100"),
    (
        {"user_input": "hi", "repetition_penalty_method": []},
        "repetition_penalty_method must be 'multiplicative'",
    ),
    ({"user_input": "hi", "seed": -1}, "seed must be between 0 and 9223372036854775807, not -1"),
    ({"user_input": "hi", "seed": HUGE}, "seed must be between 0 and"),
    ({"user_input": "hi", "seed": 1.0}, "seed must be a whole number, not 1.0"),
    ({"user_input": "hi", "max_new_tokens": 0}, "max_new_tokens must be between 1 and 100, not 0"),
    ({"user_input": "hi", "max_new_tokens": 101}, "max_new_tokens must be between 1 and 100, not 101"),
    ({"user_input": "hi", "max_new_tokens": HUGE}, "max_new_tokens must be between 1 and 100"),
    ({"user_input": "hi", "stop": [""]}, "stop must be a list of non-empty strings"),
    ({"user_input": "hi", "stop": [5]}, "stop must be a list of non-empty strings"),
    ({"user_input": "hi", "stop": {"a": 1}}, "stop must be a list of non-empty strings"),
    ({"user_input": "hi", "stop": ["a"] * 17}, "stop may hold at most 16 strings"),
    ({"user_input": "hi", "stop": "x" * 257}, "stop may hold at most 16 strings of up to 256 characters"),
]


def small_chat(tmp_path: Path) -> AbstractContextManager[Chat]:
    return running_chat(tmp_path, config={"CHATSTREAM_MAX_INPUT_LEN": 200}, max_new_tokens=100)


def check_problem(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem = json.loads(response.data)
    assert set(problem) == {"type", "title", "status", "detail", "error"}
    assert (problem["status"], problem["error"]) == (status, code)
    assert len(problem["detail"]) < 600
    return str(problem["detail"])


def test_bad_bodies_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with small_chat(tmp_path) as chat:
        for body, sentence in BAD:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            response = chat.client().post("/chat_stream", data=data, content_type="application/json")
            assert sentence in check_problem(response, 400, "bad_request"), body
            chat.check_idle()
        client = chat.client()
        talk(client, "first")
        before = chat.history(client)
        assert before == ["first", "ok"]
        for body, _ in BAD:
            if body != {"regenerate": True}:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                assert (
                    client.post("/chat_stream", data=data, content_type="application/json").status_code == 400
                )
        chat.check_idle()
        assert chat.history(client) == before
        assert chat.runner.prompts == ["U:first|A:"]


def test_content_type_must_be_json(tmp_path: Path) -> None:
    with small_chat(tmp_path) as chat:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
            response = chat.client().post(
                "/chat_stream", data=b'{"user_input": "hi"}', content_type=content_type
            )
            assert "Content-Type: application/json" in check_problem(response, 400, "bad_request")
        for content_type in ("application/json; charset=utf-8", "application/vnd.chat+json"):
            response = chat.client().post(
                "/chat_stream", data=b'{"user_input": "hi"}', content_type=content_type
            )
            assert response.data == b"ok"


@pytest.mark.parametrize("limits", [{"CHATSTREAM_MAX_BODY_LEN": 100}, {"MAX_CONTENT_LENGTH": 100}])
def test_too_large_a_body(tmp_path: Path, limits: dict[str, Any]) -> None:
    with running_chat(tmp_path, config=limits) as chat:
        response = say(chat.client(), "x" * 100)
        assert "at most 100 bytes" in check_problem(response, 413, "body_too_large")
        chat.check_idle()
        assert talk(chat.client(), "x" * 10) == "ok"


def test_a_body_may_set_what_it_likes_within_the_limits() -> None:
    body = {
        "user_input": " hi\r\n",
        "temperature": 0,
        "top_k": None,
        "top_p": 1,
        "repetition_penalty": 1.1,
        "repetition_penalty_method": "multiplicative",
        "seed": 2**63 - 1,
        "stop": ["\n", "b"],
        "max_new_tokens": 100,
    }
    asked = parse_chat_request(json.dumps(body), DEFAULTS, 200)
    assert asked.user_input == " hi\r\n"
    assert asked.params(DEFAULTS, {}) == SamplingParams(
        max_new_tokens=100,
        temperature=0,
        top_k=None,
        top_p=1,
        repetition_penalty=1.1,
        seed=2**63 - 1,
        stop=("\n", "b"),
    )
    assert parse_chat_request({"user_input": "hi", "stop": "one"}, DEFAULTS, 200).own_params == {
        "stop": ("one",)
    }
    for user_input in (None, "", "ignored"):
        again = parse_chat_request({"user_input": user_input, "regenerate": True}, DEFAULTS, 200)
        assert (again.user_input, again.regenerate) == ("", True)


def test_an_explicit_body_of_a_wrong_kind() -> None:
    bodies: list[Any] = [
        ["hi"],
        5,
        None,
        10**5000,
        {5: 1, "a": 2},
        {"user_input": "x", "temperature": 10**5000},
    ]
    for body in bodies:
        with pytest.raises(BadRequest):
            parse_chat_request(body, DEFAULTS, 200)


def test_the_prompt_formats_stop_strings_count_too(tmp_path: Path) -> None:
    with small_chat(tmp_path) as chat:
        chat.runner.reply = lambda prompt: "one STOP two END three"
        assert talk(chat.client(), "hi", stop=["END"]) == "one STOP two "
        assert talk(chat.client(), "hi", stop=["END", "STOP"]) == "one "


# -- who reads the body ------------------------------------------------------------------------------


def app_that(view: Any, chat: Chat) -> Any:
    chat.app.add_url_rule("/own", "own", view, methods=["POST"])
    return chat.client()


@pytest.mark.parametrize("read", ["get_json", "get_data", "json", "data"])
def test_a_body_read_before(tmp_path: Path, read: str) -> None:
    with small_chat(tmp_path) as chat:

        def own() -> Response:
            value = getattr(request, read)
            assert value() if callable(value) else value
            return chat.chat_stream.handle_chat_stream_request(request)

        assert app_that(own, chat).post("/own", json={"user_input": "hi"}).data == b"ok"
        assert chat.runner.prompts == ["U:hi|A:"]


@pytest.mark.parametrize("body", [b'{"user_input": "own"}', '{"user_input": "own"}', {"user_input": "own"}])
def test_an_explicit_body(tmp_path: Path, body: Any) -> None:
    with small_chat(tmp_path) as chat:

        def own() -> Response:
            return chat.chat_stream.handle_chat_stream_request(request, request_body=body)

        response = app_that(own, chat).post("/own", data={"form": "field"})
        assert response.data == b"ok"
        assert chat.runner.prompts == ["U:own|A:"]


def test_what_the_client_sent_as_an_explicit_body(tmp_path: Path) -> None:
    """`request_body=request.get_json()` may be anything that is JSON."""
    with small_chat(tmp_path) as chat:

        def own() -> Response:
            return chat.chat_stream.handle_chat_stream_request(request, request_body=request.get_json())

        client = app_that(own, chat)
        for body in (b'["hi"]', b"5", b'"hi"', b"null", b"true"):
            response = client.post("/own", data=body, content_type="application/json")
            check_problem(response, 400, "bad_request")


# -- anything at all ---------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(HUGE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAME = st.sampled_from(
    ["user_input", "regenerate", "temperature", "top_k", "top_p", "seed", "stop", "max_new_tokens"]
)
BODY = st.dictionaries(NAME | TEXT, VALUE, max_size=4) | VALUE
SENSIBLE = st.fixed_dictionaries(
    {"user_input": TEXT}, optional={"seed": st.integers(), "stop": VALUE, "top_p": VALUE}
)
MOCK = ChatStream(
    use_mock_response=True, mock_params={"type": "echo", "time_per_token_sec": 0}, max_new_tokens=8
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODY | SENSIBLE | st.binary(max_size=30))
def check_never_a_5xx(app: Flask, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with app.test_client().post("/chat_stream", data=data, content_type="application/json") as response:
        assert response.status_code in (200, 400)
        assert response.data or response.status_code == 200
        if response.status_code == 400:
            check_problem(response, 400, "bad_request")


def test_never_a_5xx(tmp_path: Path) -> None:
    app = Flask("host")
    app.config["CHATSTREAM_STORE_DIR"] = str(tmp_path)
    app.post("/chat_stream")(lambda: MOCK.handle_chat_stream_request(request))
    MOCK.init_app(app)
    try:
        check_never_a_5xx(app)
        MOCK.engine.drain(5)
        MOCK.engine.check_idle()
    finally:
        MOCK.engine.stop()
