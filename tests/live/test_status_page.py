"""The status page in a browser: live numbers and charts, and a server that has gone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from .browser import chromium, log_of
from .client import EVENTS, Visitor, wait_until
from .server import start_mock

pytestmark = pytest.mark.server


def text(browser: Chrome, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def test_live_numbers_and_a_server_that_is_gone(tmp_path: Path) -> None:
    config = {"CHATSTREAM_STATUS": "open"}
    with ExitStack() as stack:
        browser = stack.enter_context(chromium(tmp_path / "profile"))
        mock = {"type": "long", "time_per_token_sec": 0.05}
        server = stack.enter_context(start_mock("waitress", tmp_path / "server", mock, config=config))
        browser.get(f"http://127.0.0.1:{server.port}/chatstream/status")
        wait_until(lambda: text(browser, "#status") == "ready")
        visitors = [stack.enter_context(Visitor(server.port)) for _ in range(3)]
        replies = [stack.enter_context(visitor.post("hi", accept=EVENTS)) for visitor in visitors]
        wait_until(lambda: (text(browser, "#running"), text(browser, "#waiting")) == ("2", "1"))
        wait_until(lambda: text(browser, "#rate") not in ("0.0", "–"))
        assert len(browser.find_elements(By.CSS_SELECTOR, ".slot.taken")) == 2
        assert browser.find_elements(By.CSS_SELECTOR, "#requests-chart polyline.second")
        assert browser.find_elements(By.CSS_SELECTOR, "#rate-chart polyline.first")
        for reply in replies:
            reply.close()
        wait_until(lambda: "disconnected" in text(browser, "#ends"))
        assert "ms" in text(browser, "#latency-queue")
        assert log_of(browser) == []  # the Content Security Policy has blocked nothing
        server.kill()
        wait_until(lambda: "does not answer" in text(browser, "#lost"))
