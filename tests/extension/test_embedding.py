"""A chat in an app that has sessions: nothing of the app is lost, changed or restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import Morsel
from http.cookies import SimpleCookie as CookieHeader
from pathlib import Path
from typing import Any

import pytest
from cachelib import SimpleCache
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from flask_fakes import (
    Chat,
    Event,
    ScriptedRunner,
    add_routes,
    cookie_name,
    make_chat,
    read_events,
    read_until,
    running_chat,
    say,
    stopping,
    talk,
)
from flask_session import Session
from flask_session.base import ServerSideSessionInterface
from redis_server import connect, run_redis
from werkzeug.test import TestResponse

from chatstream_flask.chat.request_handler import SESSION_KEY


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from run_redis(tmp_path_factory.mktemp("redis"))


def add_host_routes(app: Flask) -> None:
    @app.get("/login/<user>")
    def login(user: str) -> str:
        session.clear()
        session["user"] = user
        return user

    @app.get("/logout")
    def logout() -> str:
        session.clear()
        return "bye"

    @app.get("/buy/<item>")
    def buy(item: str) -> list[str]:
        cart: list[str] = session.setdefault("cart", [])
        cart.append(item)
        session.modified = True
        return cart

    @app.get("/session")
    def show() -> dict[str, Any]:
        return {key: value for key, value in session.items() if key not in ("_permanent", SESSION_KEY)}


@contextmanager
def host(kind: str, store_dir: Path, runner: ScriptedRunner, redis_port: int | None = None) -> Iterator[Chat]:
    chat = make_chat(store_dir, runner)
    app = chat.app
    if kind == "cookie":
        app.secret_key = "the host's"
    elif kind == "cachelib":
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
        Session(app)  # type: ignore[no-untyped-call]
    elif kind == "redis":
        assert redis_port is not None
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=connect(redis_port))
        Session(app)  # type: ignore[no-untyped-call]
    interface = app.session_interface
    config = {key: value for key, value in app.config.items() if key.startswith("SESSION_")}
    with stopping(chat):
        chat.chat_stream.init_app(app)
        if kind != "files":
            assert app.session_interface is interface
            assert config == {key: value for key, value in app.config.items() if key.startswith("SESSION_")}
        add_routes(app, chat)
        add_host_routes(app)
        yield chat
    if kind == "redis":
        app.config["SESSION_REDIS"].close()


@pytest.fixture(params=["cookie", "files", "cachelib", "redis"])
def chat(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chat]:
    port = request.getfixturevalue("redis_port") if request.param == "redis" else None
    with host(request.param, tmp_path, ScriptedRunner(), port) as chat:
        yield chat


def test_history_and_the_hosts_session_live_side_by_side(chat: Chat) -> None:
    client = chat.client()
    client.get("/login/aki")
    talk(client, "one")
    client.get("/buy/tea")
    talk(client, "two")
    assert client.get("/session").get_json() == {"user": "aki", "cart": ["tea"]}
    assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_pages_visited_during_a_reply_lose_nothing(chat: Chat) -> None:
    client = chat.client()
    client.get("/login/aki")
    talk(client, "one")
    chat.runner.is_held = True
    events = read_events(say(client, "two"))
    read_until(events, "start")
    assert client.get("/buy/tea").get_json() == ["tea"]
    chat.runner.allow()
    read_until(events, "text")
    assert client.get("/buy/milk").get_json() == ["tea", "milk"]
    chat.runner.release()
    read_until(events, "done")
    assert client.get("/session").get_json() == {"user": "aki", "cart": ["tea", "milk"]}
    assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_a_page_that_spans_the_end_of_a_reply_loses_nothing(chat: Chat) -> None:
    """It read its session before the reply was kept and writes it back after."""
    replies: list[Iterator[Event]] = []

    @chat.app.get("/slow")
    def slow() -> str:
        session["slow"] = True
        chat.runner.release()
        read_until(replies[0], "done")
        return "done"

    client = chat.client()
    client.get("/login/aki")
    talk(client, "one")
    chat.runner.is_held = True
    replies.append(read_events(say(client, "two")))
    assert client.get("/slow").text == "done"
    assert client.get("/session").get_json() == {"user": "aki", "slow": True}
    assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_logging_out_during_a_reply_does_not_bring_the_session_back(chat: Chat) -> None:
    chat.runner.is_held = True
    client = chat.client()
    client.get("/login/aki")
    old_cookie = client.get_cookie(cookie_name(client))
    assert old_cookie is not None
    events = read_events(say(client, "secret"))
    read_until(events, "start")
    client.get("/logout")
    chat.runner.release()
    read_until(events, "done")
    assert chat.word() == "success"
    assert client.get("/session").get_json() == {}
    assert chat.history(client) == []
    if isinstance(chat.app.session_interface, ServerSideSessionInterface):
        thief = chat.client()
        thief.set_cookie(cookie_name(thief), old_cookie.value)
        assert thief.get("/session").get_json() == {}
        assert chat.history(thief) == []


def test_another_visitor_has_another_conversation(chat: Chat) -> None:
    aki, ben = chat.client(), chat.client()
    aki.get("/login/aki")
    ben.get("/login/ben")
    talk(aki, "I am Aki")
    talk(ben, "I am Ben")
    assert (chat.history(aki), chat.history(ben)) == (["I am Aki", "ok"], ["I am Ben", "ok"])


# -- cookies -----------------------------------------------------------------------------------------


def cookie_of(response: TestResponse) -> Morsel[str]:
    (header,) = response.headers.getlist("Set-Cookie")
    (morsel,) = CookieHeader(header).values()
    return morsel


def test_a_cookie_session_carries_one_id_more_and_nothing_else(tmp_path: Path) -> None:
    with host("cookie", tmp_path, ScriptedRunner()) as chat:
        assert type(chat.app.session_interface) is SecureCookieSessionInterface
        client = chat.client()
        client.get("/login/aki")
        response = say(client, "a" * 300)
        read_until(read_events(response), "done")
        cookie = cookie_of(response)
        assert (cookie["samesite"], cookie["secure"], cookie["expires"]) == ("", "", "")  # the host's own way
        serializer = chat.app.session_interface.get_signing_serializer(chat.app)
        assert serializer is not None
        data = serializer.loads(cookie.value)
        assert set(data) == {"user", SESSION_KEY}
        assert len(data[SESSION_KEY]) == 32
        before = client.get_cookie(cookie_name(client))
        talk(client, "b" * 300)
        assert client.get_cookie(cookie_name(client)) == before


@pytest.mark.parametrize("is_secure", [None, True, False])
def test_a_session_of_ours_is_for_http_and_this_site_and_ends_with_the_browser(
    tmp_path: Path, is_secure: bool | None
) -> None:
    with running_chat(tmp_path) as chat:
        del chat.app.extensions["chatstream"]
        app = Flask("host")
        app.config["CHATSTREAM_STORE_DIR"] = str(tmp_path)
        if is_secure is not None:
            app.config["CHATSTREAM_COOKIE_SECURE"] = is_secure
        chat.chat_stream.init_app(app)
        chat.app = app
        add_routes(app, chat)
        chat.runner.is_held = True
        response = say(app.test_client(), "hi")  # the cookie leaves with the first bytes
        cookie = cookie_of(response)
        assert len(cookie.value) >= 43  # 256 random bits
        assert cookie["httponly"] is True
        assert cookie["samesite"] == "Lax"
        assert cookie["secure"] == ("" if is_secure is False else True)
        assert (cookie["expires"], cookie["max-age"], cookie["domain"]) == ("", "", "")
        response.close()
        chat.word()


def test_the_hosts_choice_of_samesite_stays(tmp_path: Path) -> None:
    with running_chat(
        tmp_path, config={"SESSION_COOKIE_SAMESITE": "Strict", "SESSION_COOKIE_NAME": "sid"}
    ) as chat:
        response = say(chat.client(), "hi")
        read_until(read_events(response), "done")
        cookie = cookie_of(response)
        assert (cookie.key, cookie["samesite"]) == ("sid", "Strict")


def test_a_page_that_only_looks_sets_no_cookie_for_strangers(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        chat.app.get("/")(lambda: "hello")
        assert "Set-Cookie" not in chat.client().get("/").headers


def test_an_unknown_cookie_gets_a_new_id(tmp_path: Path) -> None:
    """Nobody can choose the session of somebody else."""
    with running_chat(tmp_path) as chat:
        client = chat.client()
        client.set_cookie(cookie_name(client), "chosen-by-an-attacker")
        response = say(client, "hi")
        read_until(read_events(response), "done")
        assert cookie_of(response).value != "chosen-by-an-attacker"


def test_what_the_host_keeps_in_our_session_must_be_json_and_says_so(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:

        @chat.app.get("/bad")
        def bad() -> str:
            session["bad"] = object()
            return "ok"

        with pytest.raises(TypeError, match="not JSON serializable"):
            chat.client().get("/bad")


def test_a_request_that_fails_after_the_view_holds_nothing(tmp_path: Path) -> None:
    """Its session could not be saved: nobody will ever read or close the reply."""

    class FullCache(SimpleCache):
        def set(self, key: str, value: Any, timeout: Any = None, mgmt_element: Any = False) -> bool:
            raise OSError("no space left")

    chat = make_chat(tmp_path, ScriptedRunner(is_held=True))
    chat.app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FullCache())
    Session(chat.app)  # type: ignore[no-untyped-call]
    with stopping(chat):
        chat.chat_stream.init_app(chat.app)
        add_routes(chat.app, chat)
        for is_testing in (True, False):
            chat.app.testing = is_testing
            if is_testing:
                with pytest.raises(OSError, match="no space left"):
                    say(chat.client(), "hi")
            else:
                assert say(chat.client(), "hi").status_code == 500
            assert chat.word() == "client_disconnected_before_streaming"
            chat.check_idle()


def test_sessions_that_the_host_sets_up_later(tmp_path: Path) -> None:
    with running_chat(tmp_path) as chat:
        chat.app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache())
        Session(chat.app)  # type: ignore[no-untyped-call]
        client = chat.client()
        talk(client, "one")
        talk(client, "two")
        assert chat.history(client) == ["one", "ok", "two", "ok"]
