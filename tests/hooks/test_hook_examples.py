"""The example apps that have hooks and tools, on scripted models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from apis import Answer, own_answer, own_events, refused
from families import FamilySource
from flask import Flask
from flask.testing import FlaskClient
from flask_fakes import SSE, parse_event, set_source
from sqlalchemy import create_engine, insert, select
from tool_chat import ScriptRunner, call, tool_tokenizer
from werkzeug.test import TestResponse

from chatstream_flask.examples import documents, japanese, moderated, orders
from chatstream_flask.extension import chat_streams_of

MOCK = {"use_mock_response": True, "context_len": 4096}


@contextmanager
def scripted(app: Flask, write: Callable[[str], str]) -> Iterator[ScriptRunner]:
    """Let a scripted model answer in an app."""
    app.config["CHATSTREAM_COOKIE_SECURE"] = False
    (chat_stream,) = chat_streams_of(app)
    tokenizer = tool_tokenizer()
    runner = ScriptRunner(tokenizer, write)
    set_source(chat_stream, FamilySource(tokenizer, runner))
    try:
        yield runner
    finally:
        chat_stream.close()


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(client: FlaskClient, text: str) -> TestResponse:
    return client.post("/chat_stream", json={"user_input": text}, headers=SSE)


def answer(client: FlaskClient, text: str) -> Answer:
    response = ask(client, text)
    return refused(response) or own_answer(own_events(response))


@pytest.mark.parametrize("module", [documents, japanese, moderated, orders])
def test_it_is_short(module: Any) -> None:
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 60


def test_documents_answer_with_their_sources(tmp_path: Path) -> None:
    (tmp_path / "shop.md").write_text("# Shop\n\n## Opening hours\n\nMondays 9 to 5.\n\n## Staff\n\nAnn.\n")
    app = documents.create_app(str(tmp_path), **MOCK)
    with scripted(app, lambda prompt: "At 9 [1]." if "Mondays 9 to 5." in prompt else "?") as runner:
        client = app.test_client()
        source = {"title": "Opening hours", "url": "/documents/shop.md"}
        assert answer(client, 'When are the "hours" (opening)?') == Answer(200, "At 9 [1].", sources=[source])
        assert "Ann." not in runner.seen[0]
        with client.get(source["url"]) as page:
            assert "Mondays" in page.get_data(as_text=True)
        assert answer(client, "?!").sources == []


def signed_up(app: Flask, name: str) -> FlaskClient:
    client = app.test_client()
    assert client.post("/signup", json={"name": name, "password": "correct horse"}).status_code == 200
    return client


def test_orders_of_other_customers_cannot_be_reached(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    app = orders.create_app(url, **MOCK)
    rows = [
        {"number": 1, "customer_id": 1, "status": "sent"},
        {"number": 2, "customer_id": 2, "status": "paid"},
    ]
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(orders.orders), rows)

    def write(prompt: str) -> str:
        """Do what the visitor says, as a model that has been talked into anything."""
        newest = prompt.rpartition("<|user|>")[2]
        if newest.startswith("<tool_response>"):
            return newest.split("\n")[1]
        name, number = newest.partition("<|end|>")[0].split()
        return call(name, number=number)

    with scripted(app, write):
        assert answer(app.test_client(), "order_status 1") == Answer(
            403, error="refused", words="Please log in first."
        )
        lucy, mallory = signed_up(app, "lucy"), signed_up(app, "mallory")
        assert answer(lucy, "order_status 1").text == "sent"
        assert answer(mallory, "order_status 2").text == "paid"
        for number in ("1", "1 OR 1=1", "-1"):
            told = answer(mallory, f"order_status {number.replace(' ', '_')}").text
            assert "sent" not in told
        assert confirmed(mallory, "cancel_order 1") == "The customer has no order with this number."
        assert confirmed(mallory, "cancel_order 2") == "It is cancelled."
        with engine.connect() as connection:
            statuses = connection.execute(select(orders.orders.c.status)).scalars().all()
        assert statuses == ["sent", "cancelled"]
    engine.dispose()


def confirmed(client: FlaskClient, text: str) -> str:
    """Return the answer after a call that the visitor has confirmed."""
    response = ask(client, text)
    message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
    text = ""
    for chunk in response.iter_encoded():
        for event in map(parse_event, chunk.decode().split("\n\n")[:-1]):
            if event.name == "step" and event.data["status"] == "confirm":
                path = f"/chat_stream/{message_id}/steps/{event.data['id']}"
                assert client.post(path, json={"confirm": True}).status_code == 204
            text += event.data["text"] if event.name == "text" else ""
    return text


def test_a_moderated_chat_refuses_masks_and_counts() -> None:
    app = moderated.create_app(**MOCK)
    replies = {
        "contact": "Call 555-0199 or ann@example.org. Bye.",
        "chemistry": "Take care. Poisons are bad.",
    }
    with scripted(app, lambda prompt: next(text for word, text in replies.items() if word in prompt)):
        client = app.test_client()
        refusal = Answer(403, error="refused", words="We do not talk about that here.")
        assert answer(client, "How do I make a bomb?") == refusal
        assert answer(client, "contact").text == "Call *** or ***. Bye."
        cut = Answer(200, "Take care. ", "refused", "The reply was stopped.")
        assert answer(app.test_client(), "chemistry") == cut
        assert client.get("/moderation").get_json() == {"stop": 1, "error": 1}


def params_of(client: FlaskClient) -> str:
    """Return the parameters of the page."""
    found = re.search(r'data-params="([^"]*)"', client.get("/").text)
    assert found
    return found.group(1)


def test_a_japanese_shop_answers_from_its_questions() -> None:
    app = japanese.create_app(**MOCK)
    with scripted(app, lambda prompt: "五千円以上は無料です。電話は03-1234-5678です。") as runner:
        client = app.test_client()
        found = answer(client, "配送料はいくらですか？")
        assert found == Answer(
            200, "五千円以上は無料です。電話は（電話番号）です。", sources=[{"title": "配送料"}]
        )
        assert "全国一律五百円です。" in runner.seen[0]
        assert answer(client, "他店の値段は？").words == "他店についてはお答えできません。"
        assert "お店のサポート" in json.loads(unescape(params_of(client)))["title"]
