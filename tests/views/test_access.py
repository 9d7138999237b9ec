"""Who may call what: every route of the app that `serve` runs, as its URL map has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_fakes import SSE, cookie_name, read_events
from werkzeug.test import TestResponse

from chatstream_flask import ChatStream
from chatstream_flask.serving.app import create_app

API_KEY, ADMIN_KEY = "an-api-key-of-tests", "an-admin-key-of-tests"
SECRET = "what Lucy said to nobody else"

READS, WRITES, LISTS, PUBLIC = "reads", "writes", "lists", "public"
KEYED, OPERATORS, PROBED = "keyed", "operators", "probed"
KINDS = {  # of every route; a new one has to be added here
    "/": PUBLIC,
    "/chat_stream": WRITES,
    "/chat_stream/<message_id>": READS,
    "/chat_stream/<message_id>/answer_now": WRITES,
    "/chat_stream/<message_id>/steps/<step_id>": WRITES,
    "/chat_stream/<message_id>/cancel": WRITES,
    "/chatstream/status": OPERATORS,
    "/chatstream/status.json": OPERATORS,
    "/chatstream/status/<any('status.js', 'status.css'):name>": OPERATORS,
    "/chatstream_ui/<wanted_version>/<path:name>": PUBLIC,
    "/clear_context": WRITES,
    "/conversation": READS,
    "/conversations": LISTS,
    "/conversations/<conversation_id>": WRITES,
    "/conversations/<conversation_id>/export.json": READS,
    "/conversations/<conversation_id>/export.md": READS,
    "/get_generation_params": READS,
    "/get_load": PUBLIC,
    "/get_prompt": READS,
    "/get_resource_usage": PUBLIC,
    "/detokenize": KEYED,
    "/health": PROBED,
    "/health/live": PROBED,
    "/health/ready": PROBED,
    "/metrics": OPERATORS,
    "/openapi.json": PUBLIC,
    "/ping": PROBED,
    "/set_feedback": WRITES,
    "/set_generation_params": WRITES,
    "/tokenize": KEYED,
    "/v1": KEYED,
    "/v1/": KEYED,
    "/v1/<chatstream_rest_of_path:path>": KEYED,
    "/v1/chat/completions": KEYED,
    "/v1/completions": KEYED,
    "/v1/models": KEYED,
    "/v1/models/<path:name>": KEYED,
    "/v1/responses": KEYED,
    "/v1/responses/<response_id>": KEYED,
    "/v1/responses/compact": KEYED,
    "/v1/responses/<response_id>/cancel": KEYED,
    "/v1/responses/<response_id>/input_items": KEYED,
    "/version": KEYED,
    "/widget.js": PUBLIC,
}
WITHOUT_DETAILS = ("/health", "/health/live", "/ping")  # no key opens more
NAMES = {  # of the argument `name`
    "/chatstream/status/<any('status.js', 'status.css'):name>": "status.js",
    "/chatstream_ui/<wanted_version>/<path:name>": "app.js",
    "/v1/models/<path:name>": "mock",
}
BODIES: dict[str, dict[str, Any]] = {
    "/chat_stream": {"user_input": "Hi"},
    "/set_generation_params": {"temperature": 0.5},
}
STRANGERS: dict[str, dict[str, str]] = {  # what the requests of somebody else have
    "no cookie": {},
    "a foreign cookie": {"Cookie": "{cookie_name}=chosen-by-somebody-else"},
    "a foreign Origin": {"Origin": "https://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a foreign Host": {"Host": "evil.example:3000"},
    "a foreign Host and its page": {"Host": "evil.example", "Origin": "http://evil.example"},
    "a wrong key": {"Authorization": "Bearer wrong", "X-Admin-Key": "wrong"},
    "the API's key for operators": {"X-Admin-Key": API_KEY},
}


class Site:
    """The app that `serve` runs, with a conversation that one visitor has."""

    def __init__(self, chat_stream: ChatStream, folder: Path) -> None:
        config = {
            "CHATSTREAM_ADMIN_KEY": ADMIN_KEY,
            "CHATSTREAM_ALLOWED_HOSTS": ["localhost"],
            "CHATSTREAM_API_KEYS": [API_KEY],
            "CHATSTREAM_COOKIE_SECURE": False,
            "CHATSTREAM_STATUS": "key",
            "CHATSTREAM_STORE_DIR": str(folder),
        }
        self.app = create_app(chat_stream, config, exclude=())
        self.lucy = self.app.test_client()
        response = self.lucy.post("/chat_stream", json={"user_input": SECRET}, headers=SSE)
        assert list(read_events(response))[-1].name == "done"
        self.message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
        (conversation,) = self.lucy.get("/conversations").get_json()["conversations"]
        self.conversation_id = conversation["id"]

    def calls(self, *kinds: str) -> Iterator[tuple[str, str, str]]:
        """Yield rule, method and path of every route of these kinds, of all without any."""
        values = {
            "message_id": self.message_id,
            "conversation_id": self.conversation_id,
            "response_id": "resp_1",
            "step_id": "call_1",
            "path": "nothing",
            "wanted_version": "0",
        }
        adapter = self.app.url_map.bind("localhost")
        for rule in self.app.url_map.iter_rules():
            if kinds and KINDS[rule.rule] not in kinds:
                continue
            parts = values | {"name": NAMES.get(rule.rule, "")}
            path = adapter.build(rule.endpoint, {name: parts[name] for name in rule.arguments})
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule.rule, method, path

    def call(self, client: FlaskClient, method: str, path: str, headers: dict[str, str]) -> TestResponse:
        headers = {key: value.format(cookie_name=cookie_name(client)) for key, value in headers.items()}
        bodies = BODIES | {"/set_feedback": {"message_id": self.message_id, "is_like": True}}
        given = {"title": "mine"} if method == "PATCH" else bodies.get(path.partition("?")[0], {})
        body = None if method == "GET" else given
        return client.open(path, method=method, headers=headers, json=body, buffered=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    chat_stream = ChatStream(use_mock_response=True, mock_params={"type": "echo", "time_per_token_sec": 0.0})
    yield Site(chat_stream, tmp_path)
    chat_stream.close()


def test_every_route_is_of_a_kind(site: Site) -> None:
    assert {rule for rule, *_ in site.calls()} == set(KINDS)


def expected(kind: str, method: str, stranger: str) -> set[int]:
    if "Host" in stranger and kind != PROBED:
        return {421}
    if kind in (KEYED, OPERATORS):
        return {401}
    if kind == PROBED:
        return {401} if "key" in stranger else {200, 503}  # a wrong key for the details is told
    if method != "GET" and any(word in stranger for word in ("Origin", "origin", "another site")):
        return {403}
    return {200, 201, 204, 404}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_gets_nothing_of_a_visitor(site: Site, stranger: str) -> None:
    before = [site.lucy.get(path).get_json() for path in ("/conversation", "/conversations")]
    headers = STRANGERS[stranger]
    for i, (rule, method, path) in enumerate(site.calls()):
        client = site.app.test_client()
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{i}"  # wrong admin keys are counted by address
        response = site.call(client, method, path, headers)
        allowed = {200} if rule in WITHOUT_DETAILS else expected(KINDS[rule], method, stranger)
        assert response.status_code in allowed, f"{method} {path}: {response.text}"
        assert SECRET not in response.text
        assert "chosen-by-somebody-else" not in response.headers.get("Set-Cookie", "")
        if "<message_id>" in rule or "<conversation_id>" in rule or rule == "/set_feedback":
            assert response.status_code in (403, 404, 421), path
    assert [site.lucy.get(path).get_json() for path in ("/conversation", "/conversations")] == before


def test_a_stranger_cannot_name_the_conversation_of_a_visitor(site: Site) -> None:
    for _, method, path in site.calls(READS, WRITES):
        url = f"{path}?conversation_id={site.conversation_id}"
        response = site.call(site.app.test_client(), method, url, {})
        assert response.status_code == 404, url
        assert SECRET not in response.text
    assert SECRET in site.lucy.get(f"/conversation?conversation_id={site.conversation_id}").text


def test_a_visitor_gets_what_is_theirs(site: Site) -> None:
    for rule, method, path in site.calls(READS, PUBLIC, PROBED):
        assert site.call(site.lucy, method, path, {}).status_code == 200, rule
    own_page = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    for path in ("/set_generation_params", "/set_feedback"):
        assert site.call(site.lucy, "POST", path, own_page).status_code == 200
    assert SECRET in site.lucy.get("/conversation").text


def test_who_has_the_key_may_call_the_api_from_any_page(site: Site) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Origin": "https://evil.example"}
    for _, method, path in site.calls(KEYED):
        response = site.call(site.app.test_client(), method, path, headers)
        assert response.status_code in (200, 400, 404, 405), path
        assert site.app.test_client().options(path).status_code == 200  # a browser's question first


def test_an_api_without_keys_is_not_for_pages_of_others(tmp_path: Path) -> None:
    chat_stream = ChatStream(use_mock_response=True)
    config = {"CHATSTREAM_STORE_DIR": str(tmp_path), "CHATSTREAM_ALLOWED_ORIGINS": ["https://a.example"]}
    client = create_app(chat_stream, config).test_client()
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://a.example", "Sec-Fetch-Site": "cross-site"}, 400),
        ({"Origin": "http://localhost"}, 400),
        ({}, 400),
    ):
        response = client.post("/v1/chat/completions", json={}, headers=headers)
        assert response.status_code == status
    assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 200


def test_operators_have_the_admin_key(site: Site) -> None:
    for _, method, path in site.calls(OPERATORS):
        response = site.call(site.app.test_client(), method, path, {"X-Admin-Key": ADMIN_KEY})
        assert response.status_code == 200, path


def test_no_redirect_goes_to_the_host_that_a_client_names(tmp_path: Path) -> None:
    large = ChatStream(use_mock_response=True, name="large")
    app = create_app(ChatStream(use_mock_response=True), {"CHATSTREAM_STORE_DIR": str(tmp_path)})
    large.append_apis(app, {"all": True})
    statuses = set()
    for rule in app.url_map.iter_rules():
        for path in (rule.rule, rule.rule.rstrip("/"), f"{rule.rule}/", f"/{rule.rule}", f"/.{rule.rule}"):
            to = {"Host": "evil.example"}
            response = app.test_client().get(headers=to, environ_overrides={"PATH_INFO": path}, buffered=True)
            assert "evil.example" not in str(response.headers), path
            statuses.add(response.status_code)
    assert 308 in statuses
    assert app.test_client().get("/large").headers["Location"] == "large/"
