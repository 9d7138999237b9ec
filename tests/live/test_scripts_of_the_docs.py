"""The JavaScript of the docs' pages on the HTTP API and on moving, in a real browser with a real server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from tcp_proxy import TCPProxy

from chatstream_flask.client import free_port

from .browser import chromium
from .client import TEXT as PLAIN
from .client import SocketChat, wait_until
from .server import REPOSITORY, Server

pytestmark = pytest.mark.server

NUM_PLACES = 7
TEXT = " ".join(f"{i}:日本語\u2028\n\nにゃ😀é" for i in range(30))
ASK = """
window.seen = {id: null, text: "", end: null, numFetches: 0};
const realFetch = window.fetch;
window.fetch = (...options) => { seen.numFetches += 1; return realFetch(...options); };
window.stopReply = () => stop(seen.id);
ask(arguments[0], (id) => { seen.id = id; }, (text) => { seen.text += text; })
  .then((end) => { seen.end = end; }, (error) => { seen.end = error.message; });
"""
READ = "const done = arguments[0]; (async () => { %s return answer; })().then(done, done);"


def script_of(page: str) -> str:
    (script,) = re.findall(r"```js\n(.*?)```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL)
    return str(script)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    mock = ["--mock", "echo", "--mock-seconds-per-token", "0.03"]
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(port), *mock]
    with Server(command, port, tmp_path_factory.mktemp("docs")) as server:
        server.wait_until_ready("/get_load")
        yield server


class Page:
    """A page of the server's origin, behind a connection that can be cut."""

    def __init__(self, browser: Chrome, server: Server) -> None:
        self.browser = browser
        self.proxy = TCPProxy(server.port)
        browser.get(f"http://127.0.0.1:{self.proxy.port}/get_load")

    def close(self) -> None:
        self.proxy.close()

    def ask(self, user_input: str) -> None:
        self.browser.execute_script(script_of("docs/http-api.md") + ASK, user_input)

    @property
    def seen(self) -> dict[str, Any]:
        return dict(self.browser.execute_script("return seen;"))

    def wait_for(self, num_chars: int) -> None:
        wait_until(lambda: len(self.seen["text"]) >= num_chars)

    def wait_for_fetch(self) -> None:
        before = self.seen
        wait_until(lambda: self.seen["numFetches"] > before["numFetches"] or before["end"] is not None)

    def end(self) -> Any:
        wait_until(lambda: self.seen["end"] is not None)
        return self.seen["end"]

    def stop(self) -> None:
        self.browser.execute_script("stopReply();")

    def run(self, script: str) -> Any:
        return self.browser.execute_async_script(script)

    def get(self, path: str) -> Any:
        return self.run(f"fetch('{path}').then((response) => response.json()).then(arguments[0]);")

    def num_accepted(self) -> int:
        (worker,) = self.get("/get_load")["chatstream_workers"]
        return int(worker["processing"] + worker["waiting"])


@pytest.fixture
def page(browser: Chrome, server: Server, tmp_path: Path) -> Iterator[Page]:
    with closing(Page(browser, server)) as page:
        yield page


def test_cut_connections_lose_nothing(page: Page) -> None:
    page.ask(TEXT)
    for num_chars in (20, 150):
        page.wait_for(num_chars)
        with page.proxy.cut():
            page.wait_for_fetch()
    assert page.end()["finish_reason"] == "stop"
    assert page.seen["numFetches"] > 2
    assert page.seen["text"] == TEXT
    assert page.end()["message_id"] == page.seen["id"]
    messages = page.get("/conversation")["messages"][-2:]
    assert [(message["text"], message["is_interrupted"]) for message in messages] == [(TEXT, False)] * 2


def test_stop(page: Page) -> None:
    page.ask(TEXT)
    page.wait_for(5)
    page.stop()
    assert page.end()["finish_reason"] == "cancelled"
    *_, reply = page.get("/conversation")["messages"]
    assert (reply["text"], reply["is_interrupted"]) == (page.seen["text"], True)
    assert TEXT.startswith(reply["text"]) and reply["text"] != TEXT


def test_refused(page: Page, server: Server) -> None:
    page.ask(" ")
    assert page.end() == "bad_request"
    with ExitStack() as stack:
        for _ in range(NUM_PLACES):
            stack.enter_context(SocketChat(server.port, TEXT, accept=PLAIN))
        wait_until(lambda: page.num_accepted() == NUM_PLACES)
        page.ask("Hello!")
        assert page.end() == "too_many_requests"  # with status 200
    wait_until(lambda: page.num_accepted() == 0)


def test_a_reply_that_is_gone(page: Page) -> None:
    page.ask(TEXT)
    page.wait_for(5)
    with page.proxy.cut():
        page.browser.delete_all_cookies()  # so that it belongs to another visitor
    assert page.end() == "not_found"


def test_reading_text(page: Page) -> None:
    assert page.run(READ % script_of("docs/moving-from-chatstream.md")) == "Hello"
