"""The widget on pages of a host with a strict policy, in a real browser, from page to page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from chatstream_flask import ChatStream
from chatstream_flask.mock.phrases import LONG
from chatstream_flask.views import create_chat_blueprint

from .browser import chromium, log_of
from .client import wait_until
from .threaded_server import served

pytestmark = pytest.mark.server

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HOST_PAGE = """<!doctype html><html lang="{language}"><title>Shop</title>
<h1>{name}</h1><a href="/{other}">{other}</a><script type="module" src="/chat/widget.js"></script>"""


class Widget:
    """What a visitor sees of the widget and does with it."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def script(self, source: str, *args: Any) -> Any:
        root = "const root = document.querySelector('chatstream-widget')?.shadowRoot;"
        return self.browser.execute_script(root + source, *args)

    def texts(self, selector: str) -> list[str]:
        found = "return [...root?.querySelectorAll(arguments[0]) ?? []].map((e) => e.textContent.trim())"
        return list(self.script(found, selector))

    def click(self, name: str) -> None:
        wanted = """return [...root?.querySelectorAll("button") ?? []].find(
            (button) => button.checkVisibility() && button.ariaLabel === arguments[0])"""
        wait_until(lambda: self.script(wanted, name))
        self.script(wanted, name).click()

    def say(self, text: str) -> None:
        wait_until(lambda: self.focus == "TEXTAREA")
        self.browser.switch_to.active_element.send_keys(text, Keys.ENTER)

    def num_words(self) -> int:
        return len(" ".join(self.texts(".prose")).split())

    @property
    def focus(self) -> str:
        return str(self.script("return root?.activeElement?.nodeName ?? ''"))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path / "profile") as browser:
        yield browser


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """Serve two pages with a strict policy and the widget, whose replies take seconds; return the address."""
    mock = {"type": "long", "time_per_token_sec": 0.005}
    chat_stream = ChatStream(use_mock_response=True, mock_params=mock, context_len=4096, max_new_tokens=2000)
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config.update(SECRET_KEY="kept by the host")
    chat_stream.init_app(app)
    app.register_blueprint(create_chat_blueprint(chat_stream), url_prefix="/chat")

    @app.get("/<name>")
    def page(name: str) -> tuple[str, dict[str, str]]:
        language, other = ("ja", "shoes") if name == "hats" else ("en", "hats")
        text = HOST_PAGE.format(name=name, language=language, other=other)
        return text, {"Content-Security-Policy": POLICY}

    try:
        with served(app) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        chat_stream.close()


def loaded_bytes(browser: Chrome) -> int:
    """Return the size of all that the page has loaded for the widget."""
    sizes = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/chat/'))"
    return int(browser.execute_script(f"return {sizes}.reduce((sum, each) => sum + each.decodedBodySize, 0)"))


def test_a_reply_goes_on_when_the_visitor_follows_a_link(browser: Chrome, shop: str) -> None:
    browser.get(f"{shop}/shoes")
    widget = Widget(browser)
    wait_until(lambda: len(widget.texts(".launcher")) == 1)
    assert loaded_bytes(browser) < 40_000
    widget.click("Open the chat")
    widget.say("Tell me a story.")
    wait_until(lambda: widget.num_words() >= 5)
    browser.find_element("link text", "hats").click()
    wait_until(lambda: browser.title == "Shop" and browser.current_url.endswith("/hats"))
    wait_until(lambda: widget.num_words() >= 5)
    assert widget.texts(".is-running")
    assert widget.texts(".bubble") == ["Tell me a story."]
    assert widget.focus == ""  # a page that opens leaves the focus where it is
    wait_until(lambda: widget.num_words() >= len(LONG.split()))
    wait_until(lambda: not widget.texts(".is-running"))
    assert " ".join(widget.texts(".prose")).split() == LONG.split()
    assert widget.script("return root.querySelector('a[target]').pathname") == "/chat/"
    browser.find_element("css selector", "chatstream-widget").shadow_root.find_element(
        "css selector", "textarea"
    ).send_keys(Keys.ESCAPE)
    assert not widget.script("return root.querySelector('.panel').checkVisibility()")
    assert widget.script("return root.activeElement.ariaLabel") == "チャットを開く"
    complaints = [entry["message"] for entry in log_of(browser) if entry["level"] in ("SEVERE", "WARNING")]
    assert [text for text in complaints if "favicon" not in text] == []
