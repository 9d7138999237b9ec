"""SmolLM2 with the defaults, as its first visitors meet it: ten turns in the page and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from smollm2 import smollm2_folder
from suite_size import IS_FULL

from chatstream_flask.inference.loading.packaged_model import SMOLLM2

from .browser import chromium
from .client import Visitor
from .page import Page, start_site
from .server import Server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not IS_FULL, reason="takes minutes: scripts/reliability models runs it"),
]

TURNS = {  # and words of which a sensible reply has one
    "What is the capital of France?": ("Paris",),
    "And of Italy?": ("Rome",),
    "Name three animals that live in the sea.": ("whale", "shark", "dolphin", "fish", "turtle", "octopus"),
    "Which of them is the largest?": ("whale", "shark", "largest"),
    "Write one sentence about the moon.": ("moon",),
    "What colour is the sky on a clear day?": ("blue",),
    "How many days are in a week?": ("seven", "7"),
    "Give me one tip for sleeping well.": ("sleep", "bed"),
    "Who wrote Romeo and Juliet?": ("Shakespeare",),
    "Thank you. Goodbye!": ("welcome", "bye", "glad", "help", "day", "thank"),
}
MIN_SENSIBLE = 6  # replies: the model is small, and samples


@pytest.fixture(scope="module", params=["float32", "bfloat16", "gguf"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    model = SMOLLM2._fetch(folder) if request.param == "gguf" else smollm2_folder()
    dtype = ["--dtype", "float32"] if request.param == "float32" else []
    with start_site(folder / "site", "--model", str(model), *dtype) as server:
        yield server


def check(replies: list[str]) -> None:
    """Print a chat, and check that it is sensible."""
    for question, reply in zip(TURNS, replies, strict=True):
        print(f"> {question}\n{reply}")
    assert all(replies)
    found = [
        any(word.lower() in reply.lower() for word in words)
        for reply, words in zip(replies, TURNS.values(), strict=True)
    ]
    assert sum(found) >= MIN_SENSIBLE, found


def test_ten_turns_in_the_page(site: Server, tmp_path: Path) -> None:
    with chromium(tmp_path) as browser:
        page = Page(browser, site.port)
        page.open()
        check([page.ask(question) for question in TURNS])
        assert not page.failure and not page.texts(".note")
        page.open()
        page.wait(lambda: len(page.replies) == len(TURNS))


def test_ten_turns_over_http(site: Server) -> None:
    with Visitor(site.port) as visitor:
        check([visitor.ask(question) for question in TURNS])
