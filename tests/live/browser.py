"""A headless Chromium with its background services switched off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

NO_CHROMIUM = "chromium and chromedriver are not installed; scripts/test installs them where it may"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SCRIPT_TIMEOUT_SEC = 20


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Start a browser.

    :param profile: an empty folder
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(NO_CHROMIUM)
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options, ChromeService(driver))
    try:
        chrome.set_script_timeout(SCRIPT_TIMEOUT_SEC)
        yield chrome
    finally:
        chrome.quit()


def log_of(browser: Chrome) -> list[dict[str, Any]]:
    """Return the new entries of the console: `level`, `source`, `message`."""
    return list(browser.get_log("browser"))  # type: ignore[no-untyped-call]
