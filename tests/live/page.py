"""The chat page in a browser, as its user sees it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from chatstream_flask.client import free_port

from .client import wait_until
from .server import Server


def start_site(folder: Path, *options: str, port: int | None = None) -> Server:
    """Start the server that `scripts/serve` starts."""
    port = port or free_port()
    command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(port), *options]
    server = Server(command, port, folder)
    try:
        server.wait_until_ready("/")
    except BaseException:
        server.kill()
        raise
    return server


class Page:
    """One browser tab with the chat page."""

    def __init__(self, browser: Chrome, port: int, path: str = "") -> None:
        self.browser = browser
        self.url = f"http://127.0.0.1:{port}/{path}"

    def open(self) -> None:
        self.browser.get(self.url)
        self.wait(lambda: self.script("return document.activeElement.id === 'composer-area'"))

    def script(self, source: str, *args: Any) -> Any:
        return self.browser.execute_script(source, *args)

    def module(self, source: str, *args: Any) -> Any:
        """Run a script in which `load(name)` imports a module of the page; its result must be JSON."""
        wrapped = f"""
            const done = arguments[arguments.length - 1];
            const files = document.querySelector("script[type=module]").src.replace("app.js", "");
            const load = (name) => import(files + name);
            (async (args) => {{ {source} }})([...arguments].slice(0, -1))
              .then((value) => done({{ value }}), (error) => done({{ error: String(error) }}));"""
        answer = self.browser.execute_async_script(wrapped, *args)
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def wait(self, is_true: Any) -> None:
        """Wait for a condition; elements that are redrawn meanwhile are looked up again."""

        def is_true_now() -> bool:
            with suppress(StaleElementReferenceException):
                return bool(is_true())
            return False

        wait_until(is_true_now)

    # -- what is there ---------------------------------------------------------------------------------

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def has(self, selector: str) -> bool:
        """Return whether the element exists and is visible."""
        return any(found.is_displayed() for found in self.browser.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        """Return the texts in document order, visible or not."""
        wanted = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
        return list(self.script(wanted, selector))

    @property
    def questions(self) -> list[str]:
        return self.texts(".bubble")

    @property
    def replies(self) -> list[str]:
        return [text.strip() for text in self.texts(".prose")]

    @property
    def failure(self) -> str:
        return "".join(self.texts(".failure p"))

    @property
    def is_running(self) -> bool:
        return bool(self.script("return !!document.querySelector('.send.is-stop')"))

    @property
    def draft(self) -> str:
        return str(self.script("return document.getElementById('composer-area').value"))

    @property
    def focus(self) -> str:
        """The accessible name of the focused element."""
        return str(self.browser.switch_to.active_element.accessible_name)

    # -- what its user does ----------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Send keys to the focused element."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def say(self, text: str) -> None:
        self.type(text)
        self.find("#composer-area").send_keys(Keys.ENTER)

    def type(self, text: str) -> None:
        """Paste text: the driver cannot type characters outside the BMP, nor Shift+Enter."""
        paste = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.script(paste, self.find("#composer-area"), text)

    def ask(self, text: str) -> str:
        """Send a message; return the whole reply."""
        before = len(self.replies)
        self.say(text)
        self.wait(lambda: len(self.replies) > before and not self.is_running)
        return self.replies[-1]

    def click(self, name: str, within: str = "body") -> None:
        """Click the last button with this accessible name, once it is there."""
        wanted = """
            const [within, name] = arguments;
            const isSeen = (button) => button.checkVisibility();
            const nameOf = (button) => button.getAttribute("aria-label") ?? button.textContent;
            const buttons = [...document.querySelectorAll(`:is(${within}) button`)].filter(isSeen);
            return buttons.findLast((button) => nameOf(button) === name) ?? null;"""

        def is_clicked() -> bool:
            button = self.script(wanted, within, name)
            if button is None:
                return False
            self.script("arguments[0].scrollIntoView({block: 'nearest'})", button)
            button.click()
            return True

        self.wait(is_clicked)

    def wait_for_words(self, num_words: int) -> None:
        self.wait(lambda: self.replies and len(self.replies[-1].split()) >= num_words)

    def wait_until_ended(self) -> None:
        self.wait(lambda: not self.is_running)
