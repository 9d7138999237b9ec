"""Several ChatStreams in one app: each has its model, queue, conversations and routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Request
from flask.testing import FlaskClient
from flask_fakes import PlainPrompt, ScriptedRunner, ScriptedSource, read_events, set_source
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, TestResponse

from chatstream_flask import AbstractRequestHandler, ChatStream
from chatstream_flask.chat.instance_name import RESERVED
from chatstream_flask.errors import ConfigError
from chatstream_flask.http.server_check import SPARE_THREADS, num_reply_threads
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.views import create_chat_blueprint, create_operations_blueprint

SSE = {"Accept": "text/event-stream"}
ECHO = {"type": "echo", "time_per_token_sec": 0.0}


class UserHandler(AbstractRequestHandler):
    def get_conversation_id(self, request: Request) -> str:
        return request.headers["X-User"]


class Two:
    """An app with a ChatStream without a name and one that is named "large"."""

    def __init__(self, folder: Path, request_handler: AbstractRequestHandler | None = None) -> None:
        self.app = make_app(folder)
        self.runners = {
            "default": ScriptedRunner(lambda p: "small"),
            "large": ScriptedRunner(lambda p: "big"),
        }
        self.chats = {name: self._add(name, request_handler) for name in self.runners}

    def _add(self, name: str, request_handler: AbstractRequestHandler | None) -> ChatStream:
        chat_stream = ChatStream(
            name=name,
            use_mock_response=True,
            chat_prompt_clazz=PlainPrompt,
            num_of_concurrent_executions=1,
            max_queue_size=0,
            too_many_request_as_http_error=name == "large",
            request_handler=request_handler,
            app=self.app,
        )
        set_source(chat_stream, ScriptedSource(self.runners[name], 1024))
        for blueprint in (
            create_chat_blueprint(chat_stream),
            create_openai_blueprint(chat_stream),
            create_operations_blueprint(chat_stream),
        ):
            self.app.register_blueprint(blueprint)
        return chat_stream

    def close(self) -> None:
        for name, chat_stream in self.chats.items():
            self.runners[name].release()
            chat_stream.close()
            chat_stream.engine.check_idle()


def make_app(folder: Path, name: str = "host") -> Flask:
    app = Flask(name, instance_path=str(folder))
    app.config.update(CHATSTREAM_STORE_DIR=str(folder), CHATSTREAM_COOKIE_SECURE=False)
    return app


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    both = Two(tmp_path)
    yield both
    both.close()


def post(client: FlaskClient, path: str, user_input: str, user: str = "") -> TestResponse:
    headers = SSE | ({"X-User": user} if user else {})
    return client.post(path, json={"user_input": user_input}, headers=headers)


def talk(client: FlaskClient, path: str, user_input: str, user: str = "") -> str:
    events = list(read_events(post(client, path, user_input, user)))
    assert events[-1].name == "done", events
    return "".join(event.data["text"] for event in events if event.name == "text")


def test_they_chat_in_turn_and_keep_their_conversations_apart(two: Two) -> None:
    client, other = two.app.test_client(), two.app.test_client()
    for path, says in (("/chat_stream", "small"), ("/large/chat_stream", "big")) * 2:
        assert talk(client, path, "hi") == says
    assert talk(other, "/large/chat_stream", "hello") == "big"
    assert two.runners["default"].prompts == ["U:hi|A:", "U:hi|A:small|U:hi|A:"]
    assert two.runners["large"].prompts == ["U:hi|A:", "U:hi|A:big|U:hi|A:", "U:hello|A:"]


class Channel:
    """The connection as waitress passes it in the environ, with the default of 4 threads."""

    adj = SimpleNamespace(threads=4, channel_request_lookahead=1, asyncore_use_poll=True)

    def is_gone(self) -> bool:
        return False


def test_a_server_needs_threads_for_all_of_them(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    environ = {"waitress.client_disconnected": Channel().is_gone}
    client = two.app.test_client()
    response = client.post("/chat_stream", json={"user_input": "hi"}, environ_overrides=environ)
    assert response.status_code == 200
    (told,) = [record for record in caplog.records if record.msg.startswith("waitress needs")]
    num_threads = sum(num_reply_threads(chat.engine.config) for chat in two.chats.values()) + SPARE_THREADS
    assert told.args == (f"threads={num_threads}", 2)


def test_clearing_one_conversation_leaves_the_other(two: Two) -> None:
    client = two.app.test_client()
    talk(client, "/chat_stream", "hi")
    talk(client, "/large/chat_stream", "hi")
    assert client.post("/large/clear_context").get_json()["success"]
    assert client.get("/large/conversation").get_json()["messages"] == []
    assert len(client.get("/conversation").get_json()["messages"]) == 2


def test_each_has_a_queue_of_its_own_and_refuses_in_its_own_way(two: Two) -> None:
    one, other = two.app.test_client(), two.app.test_client()
    for runner in two.runners.values():
        runner.is_held = True
    held = [post(one, path, "hi") for path in ("/chat_stream", "/large/chat_stream")]
    assert post(other, "/chat_stream", "hi").status_code == 200
    assert post(other, "/large/chat_stream", "hi").status_code == 429
    assert [chat.num_running + chat.num_waiting for chat in two.chats.values()] == [1, 1]
    for response in held:
        response.close()


def test_errors_of_a_view_are_answered_by_the_chat_stream_that_has_it(two: Two) -> None:
    client = two.app.test_client()
    for path in ("/set_generation_params", "/large/set_generation_params"):
        response = client.post(path, json={"temperature": -1})
        assert (response.status_code, response.get_json()["error"]) == (400, "bad_request")


def test_both_pages_come_with_their_files(two: Two) -> None:
    client = two.app.test_client()
    for page in ("/", "/large/"):
        html = client.get(page).text
        script = html.partition('type="module" src="')[2].partition('"')[0]
        assert script.startswith("chatstream_ui/")  # seen from the page, as are the routes that it calls
        with client.get(page + script) as response:
            assert response.content_type == "text/javascript; charset=utf-8"


def test_each_has_its_own_openai_api_metrics_and_health(two: Two) -> None:
    client = two.app.test_client()
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
    for prefix, says in (("", "small"), ("/large", "big")):
        answer = client.post(f"{prefix}/v1/chat/completions", json=body).get_json()
        assert answer["choices"][0]["message"]["content"] == says
        assert client.get(f"{prefix}/health/ready").status_code == 200
    talk(client, "/large/chat_stream", "hi")
    counts = [client.get(f"{prefix}/metrics").text for prefix in ("", "/large")]
    for num, text in zip((1, 2), counts, strict=True):
        assert f'chatstream_request_success_total{{finished_reason="stop"}} {num}.0' in text


def test_an_app_may_register_a_blueprint_elsewhere(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    chat_stream = ChatStream(name="titles", use_mock_response=True, app=app)
    app.register_blueprint(create_chat_blueprint(chat_stream), url_prefix="/title-writer")
    app.register_blueprint(create_openai_blueprint(chat_stream, url_prefix="/openai"))
    client = app.test_client()
    assert client.get("/title-writer/get_load").status_code == 200
    assert client.get("/openai/models").status_code == 200
    assert client.get("/titles/get_load").status_code == 404


def test_append_apis_sets_each_of_them_up(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    for name in ("default", "large"):
        ChatStream(name=name, use_mock_response=True).append_apis(app, {"all": True})
    client = app.test_client()
    assert [client.get(path).status_code for path in ("/get_load", "/large/get_load")] == [200, 200]


def test_ids_of_a_handler_are_each_instances_own(tmp_path: Path) -> None:
    two = Two(tmp_path, UserHandler())
    client = two.app.test_client()
    talk(client, "/chat_stream", "hi", "lucy")
    talk(client, "/large/chat_stream", "hello", "lucy")
    assert two.runners["large"].prompts == ["U:hello|A:"]
    store = two.chats["large"].store(two.app)
    assert store is two.chats["default"].store(two.app)
    assert store.load("chatstream-instance:large:lucy") is not None
    assert post(client, "/chat_stream", "hi", "chatstream-instance:large:lucy").status_code == 404
    two.close()


def test_a_handler_may_say_that_they_share_conversations(tmp_path: Path) -> None:
    handler = UserHandler()
    handler.shares_conversations = True
    two = Two(tmp_path, handler)
    client = two.app.test_client()
    talk(client, "/chat_stream", "hi", "lucy")
    talk(client, "/large/chat_stream", "hello", "lucy")
    two.runners["default"].is_held = True
    held = post(client, "/chat_stream", "wait", "lucy")
    assert post(client, "/large/chat_stream", "now", "lucy").status_code == 409
    held.close()
    two.close()
    assert two.runners["large"].prompts == ["U:hi|A:small|U:hello|A:"]


@pytest.mark.parametrize("name", ["default", "large"])
def test_a_name_is_given_once(tmp_path: Path, name: str) -> None:
    app = make_app(tmp_path)
    ChatStream(name=name, use_mock_response=True, app=app)
    with pytest.raises(RuntimeError, match=f"already has a ChatStream named '{name}'"):
        ChatStream(name=name, use_mock_response=True, app=app)


@pytest.mark.parametrize("name", ["", "Large", "a/b", "a.b", "7b", "x" * 33, None, 1, *sorted(RESERVED)])
def test_a_name_is_a_part_of_a_path_that_is_free(name: str) -> None:
    with pytest.raises(ConfigError, match="name must"):
        ChatStream(name=name, use_mock_response=True)


def test_no_name_can_be_a_path_of_the_one_without_a_name(two: Two) -> None:
    rules = {rule.rule.split("/")[1] for rule in two.app.url_map.iter_rules()}
    assert rules - {"", "large"} <= RESERVED


# -- two apps of one host ------------------------------------------------------------------------------


class TwoApps:
    """Two apps below one address, as browsers see also two ports of one host."""

    def __init__(self, one: Path, other: Path) -> None:
        self.apps = {"/one": make_app(one, "one"), "/other": make_app(other, "other")}
        self.chats = []
        for app in self.apps.values():
            chat_stream = ChatStream(use_mock_response=True, mock_params=ECHO)
            chat_stream.append_apis(app, {"all": True})
            self.chats.append(chat_stream)
        mounts: dict[str, Any] = {path: app.wsgi_app for path, app in self.apps.items()}
        self.browser = Client(DispatcherMiddleware(Flask("root"), mounts))

    def talk(self, path: str, user_input: str) -> TestResponse:
        response = self.browser.post(f"{path}/chat_stream", json={"user_input": user_input})
        assert response.get_data(as_text=True) == user_input
        return response

    def history(self, path: str) -> list[str]:
        messages = self.browser.get(f"{path}/conversation").get_json()["messages"]
        return [message["text"] for message in messages]

    def close(self) -> None:
        for chat_stream in self.chats:
            chat_stream.close()


@pytest.mark.parametrize("other_folder", ["one", "other"])
def test_two_apps_of_one_host_do_not_lose_each_others_chats(tmp_path: Path, other_folder: str) -> None:
    two = TwoApps(tmp_path / "one", tmp_path / other_folder)
    for path in ("/one", "/other") * 2:
        two.talk(path, f"hi {path}")
    assert two.history("/one") == ["hi /one"] * 4
    assert two.history("/other") == ["hi /other"] * 4
    two.close()


def test_a_cookie_of_the_name_before_is_still_good(tmp_path: Path) -> None:
    two = TwoApps(tmp_path / "one", tmp_path / "other")
    two.talk("/one", "hi")
    name = two.apps["/one"].config["SESSION_COOKIE_NAME"]
    cookie = two.browser.get_cookie(name)
    assert cookie is not None
    two.browser.delete_cookie(name)
    two.browser.set_cookie("session", cookie.value)
    response = two.talk("/one", "hi again")
    assert f"{name}={cookie.value}" in response.headers["Set-Cookie"]
    two.talk("/other", "hello")
    assert two.history("/one") == ["hi", "hi", "hi again", "hi again"]
    assert two.history("/other") == ["hello", "hello"]
    two.close()


def test_the_hosts_own_name_of_the_cookie_stays(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    app.config["SESSION_COOKIE_NAME"] = "sid"
    ChatStream(use_mock_response=True, app=app)
    assert app.config["SESSION_COOKIE_NAME"] == "sid"
