"""SmolLM2 with the defaults, as its first visitors meet it: ten turns in the page and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from smollm2 import smollm2_folder
from suite_size import IS_FULL

from chatstream_flask.client import text_of
from chatstream_flask.inference.loading.packaged_model import SMOLLM2

from .browser import chromium
from .client import Visitor
from .page import Page, start_site
from .server import Server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not IS_FULL, reason="takes minutes: scripts/reliability models runs it"),
]

TURNS = [
    "What is the capital of France?",
    "And of Italy?",
    "Name three animals that live in the sea.",
    "Which of them is the largest?",
    "Write one sentence about the moon.",
    "What colour is the sky on a clear day?",
    "How many days are in a week?",
    "Give me one tip for sleeping well.",
    "Who wrote Romeo and Juliet?",
    "Thank you. Goodbye!",
]


@pytest.fixture(scope="module", params=["float32", "bfloat16", "gguf"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    model = SMOLLM2._fetch(folder) if request.param == "gguf" else smollm2_folder()
    dtype = ["--dtype", "float32"] if request.param == "float32" else []
    with start_site(folder / "site", "--model", str(model), *dtype) as server:
        yield server


def show(replies: list[str]) -> None:
    """Print a chat, for a person to read: the model is small, and samples."""
    for question, reply in zip(TURNS, replies, strict=True):
        print(f"> {question}\n{reply}")


def test_ten_turns_in_the_page(site: Server, tmp_path: Path) -> None:
    with chromium(tmp_path) as browser:
        page = Page(browser, site.port)
        page.open()
        replies = [page.ask(question) for question in TURNS]
        show(replies)
        assert all(replies)
        assert not page.failure and not page.texts(".note")  # each reply ended by itself
        page.open()
        page.wait(lambda: page.replies == replies)


def test_ten_turns_over_http(site: Server) -> None:
    with Visitor(site.port) as visitor:
        replies = []
        for question in TURNS:
            events = visitor.ask_for_events(question)
            replies.append(text_of(events))
            assert events[-1].data["finish_reason"] == "stop"
    show(replies)
    assert all(replies)
