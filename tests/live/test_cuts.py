"""Connections that are cut during a reply: a reader that resumes gets exactly the same text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests

from chatstream_flask.client import Event, parse_events, text_of

from .client import EVENTS, TIMEOUT_SEC, Visitor
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_CUTS = 100  # on each server
MAX_BYTES_BEFORE_CUT = 1500
TEXT = " ".join(f"{i}:日本語\n\nにゃ😀é" for i in range(80))


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock that echoes each message."""
    mock = {"type": "echo", "time_per_token_sec": 0.001}
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-cuts"), mock) as server:
        yield server


class Reader:
    """Reads one reply over any number of connections; incomplete events are dropped."""

    def __init__(self, visitor: Visitor, port: int) -> None:
        self._session = visitor.session
        self._url = f"http://127.0.0.1:{port}/api/chat_stream"
        self._message_id = ""
        self.events: list[Event] = []

    @property
    def is_done(self) -> bool:
        return bool(self.events) and self.events[-1].name == "done"

    def read(self, max_bytes: int | None) -> None:
        """Read to the end, or cut the connection after `max_bytes`."""
        with closing(self._connect()) as response:
            assert response.status_code == 200, response.text
            self._message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
            if max_bytes is None:
                self.events += parse_events(response.content)
            else:
                self.events += parse_events(response.raw.read(max_bytes))

    def _connect(self) -> requests.Response:
        headers = {"Accept": EVENTS, "Connection": "close"}
        if not self._message_id:
            body: dict[str, Any] = {"user_input": TEXT, "max_new_tokens": 255}
            return self._session.post(self._url, json=body, headers=headers, stream=True, timeout=TIMEOUT_SEC)
        headers["Last-Event-ID"] = str(len(text_of(self.events)))
        url = f"{self._url}/{self._message_id}"
        return self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SEC)


def test_cuts_at_random_places_lose_and_double_nothing(server: Server) -> None:
    rng = random.Random(4)
    with Visitor(server.port) as visitor:
        uncut = Reader(visitor, server.port)
        uncut.read(None)
    expected = text_of(uncut.events).encode()
    assert uncut.is_done and len(expected) > 900
    num_cuts = num_replies = 0
    while num_cuts < NUM_CUTS:
        with Visitor(server.port) as visitor:
            reader = Reader(visitor, server.port)
            while not reader.is_done:
                reader.read(rng.randrange(1, MAX_BYTES_BEFORE_CUT))
                num_cuts += not reader.is_done
            assert text_of(reader.events).encode() == expected
            conversation = visitor.session.get(f"http://127.0.0.1:{server.port}/api/conversation").json()
            assert [message["is_interrupted"] for message in conversation["messages"]] == [False, False]
            num_replies += 1
    print(f"{num_cuts} cuts in {num_replies} replies")
    server.check_idle()
