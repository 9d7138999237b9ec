"""A page of one origin uses a chat of another origin, with cookies, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask_cors import CORS
from selenium.webdriver import Chrome

from chatstream_flask import ChatStream
from chatstream_flask.client import parse_events, text_of
from chatstream_flask.views import create_chat_blueprint

from .browser import chromium
from .client import wait_until
from .test_widget import Widget
from .threaded_server import served

pytestmark = pytest.mark.server

SAY = """
const [url, userInput, done] = arguments;
fetch(url, {
  method: "POST",
  credentials: "include",
  headers: {"Content-Type": "application/json", "Accept": "text/event-stream"},
  body: JSON.stringify({user_input: userInput}),
}).then(async (response) => {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const chunks = [];
  for (let part; !(part = await reader.read()).done;) chunks.push(part.value);
  const id = response.headers.get("X-ChatStream-Last-Generated-Message-Id");
  done({chunks, id, cookie: document.cookie});
}).catch((error) => done({refused: error.name}));
"""


@dataclass
class Site:
    """Two origins with the same empty page, and a chat on a third origin that allows the first."""

    browser: Chrome
    chat_url: str
    allowed: str
    same_site: str
    other_site: str  # allowed as well
    posts: list[str]  # origins of the requests that reached the chat

    def say(self, origin: str, user_input: str) -> dict[str, Any]:
        if not self.browser.current_url.startswith(origin):
            self.browser.get(origin)
        return dict(self.browser.execute_async_script(SAY, self.chat_url, user_input))


def page_app() -> Flask:
    app = Flask("page")

    @app.get("/")
    @app.get("/favicon.ico")
    def page() -> str:
        return "<title>A page</title>"

    return app


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    mock = {"type": "round", "time_per_token_sec": 0.0}  # replies begin with the number of the turn
    chat_stream = ChatStream(use_mock_response=True, mock_params=mock)
    posts: list[str] = []
    with (
        chromium(tmp_path / "profile") as browser,
        served(page_app()) as first,
        served(page_app()) as second,
    ):
        allowed, other_site = f"http://127.0.0.1:{first}", f"http://localhost:{first}"
        app = chat_app(chat_stream, tmp_path, [allowed, other_site], posts)
        try:
            with served(app) as port:
                chat_url = f"http://127.0.0.1:{port}/chat_stream"
                yield Site(browser, chat_url, allowed, f"http://127.0.0.1:{second}", other_site, posts)
        finally:
            chat_stream.close()


def chat_app(chat_stream: ChatStream, folder: Path, origins: list[str], posts: list[str]) -> Flask:
    app = Flask("chat", instance_path=str(folder))
    app.config.update(CHATSTREAM_COOKIE_SECURE=False, CHATSTREAM_ALLOWED_ORIGINS=origins)
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream))
    CORS(
        app,
        origins=origins,
        supports_credentials=True,
        expose_headers=["X-ChatStream-Last-Generated-Message-Id"],
    )

    @app.before_request
    def note() -> None:
        if request.method == "POST":
            posts.append(request.headers["Origin"])

    return app


def reply_of(answer: dict[str, Any]) -> str:
    events = parse_events("".join(answer["chunks"]).encode())
    assert events[-1].name == "done"
    assert events[-1].data["message_id"] == answer["id"]
    return text_of(events)


def test_an_allowed_origin_has_a_conversation(site: Site) -> None:
    answers = [site.say(site.allowed, "Hello!"), site.say(site.allowed, "Hello again!")]
    assert [reply_of(answer)[:2] for answer in answers] == ["1.", "2."]
    assert [answer["cookie"] for answer in answers] == ["", ""]  # scripts cannot read it
    assert site.posts == [site.allowed] * 2


def test_another_origin_is_refused_by_the_browser(site: Site) -> None:
    assert reply_of(site.say(site.allowed, "Hello!")).startswith("1.")
    assert site.say(site.same_site, "Hello!") == {"refused": "TypeError"}
    assert reply_of(site.say(site.allowed, "Hello again!")).startswith("2.")
    assert site.posts == [site.allowed] * 2  # the refused requests were never sent


def test_the_widget_works_on_a_page_of_an_allowed_origin(site: Site) -> None:
    script = "Object.assign(document.createElement('script'), {type: 'module', src: arguments[0]})"

    def open_page() -> None:
        site.browser.get(site.allowed)
        address = site.chat_url.replace("chat_stream", "widget.js")
        site.browser.execute_script(f"document.body.append({script})", address)

    open_page()
    widget = Widget(site.browser)
    widget.click("Open the chat")
    widget.say("Hello!")
    wait_until(lambda: len(widget.texts(".reply .actions")) == 1)
    widget.say("Hello again!")
    wait_until(lambda: len(widget.texts(".reply .actions")) == 2)
    open_page()
    wait_until(lambda: widget.texts(".bubble") == ["Hello!", "Hello again!"])  # the session is known
    assert site.posts == [site.allowed] * 2


def test_from_another_site_no_lax_cookie_is_sent(site: Site) -> None:
    """Each turn starts a new conversation; SameSite=None and https would be needed."""
    for words in ("Hello!", "Hello again!"):
        assert reply_of(site.say(site.other_site, words)).startswith("1.")
