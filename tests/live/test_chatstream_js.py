"""ChatStream's own front end, unchanged, with `wire_format="chatstream"` and `on_busy="queue"`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.cookiejar import Cookie
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from .client import TIMEOUT_SEC, SocketChat, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server

EOS = "<::EOS::>"
TEXT = "One two three four five six seven eight nine ten."
LONG = " ".join(str(number) for number in range(500))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a mock that echoes each message."""
    mock = {"type": "echo", "time_per_token_sec": 0.02}
    folder = tmp_path_factory.mktemp("chatstream-js")
    with start_mock("waitress", folder, mock, wire_format="chatstream", on_busy="queue") as server:
        yield server


class ChatStreamJs:
    """Reads as the front end does: a network read is the whole text so far; to stop is to disconnect."""

    def __init__(self, server: Server) -> None:
        self._url = f"http://127.0.0.1:{server.port}/api/"
        self.session = requests.Session()
        self.message_id = ""

    def send(
        self, user_input: str | None, *, regenerate: bool = False, abort_after: int | None = None
    ) -> list[str]:
        """Yield the arguments of the `onResponse` calls."""
        body = {"user_input": user_input, "regenerate": regenerate}
        with self._post("chat_stream", body) as response:
            assert response.status_code == 200
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.headers["Transfer-Encoding"] == "chunked"
            self.message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
            reads = []
            for read in response.iter_content(chunk_size=None):  # one chunk of the server's
                reads.append(read.decode())
                if len(reads) == abort_after:
                    break
        return reads

    def post(self, path: str, body: Any) -> Any:
        return self._post(path, body).json()

    def get(self, path: str) -> Any:
        return self.session.get(self._url + path, timeout=TIMEOUT_SEC).json()

    def _post(self, path: str, body: Any) -> requests.Response:
        return self.session.post(self._url + path, json=body, stream=True, timeout=TIMEOUT_SEC)


@pytest.fixture
def client(server: Server) -> Iterator[ChatStreamJs]:
    client = ChatStreamJs(server)
    with client.session:
        yield client
    server.check_idle()


def answers(reads: list[str]) -> list[str]:
    """Return the messages as they are shown, without their end marks."""
    assert all(read.endswith(EOS) and read.count(EOS) == 1 for read in reads)
    return [read.removesuffix(EOS) for read in reads]


def test_each_read_is_the_whole_answer_so_far(client: ChatStreamJs) -> None:
    shown = answers(client.send(f"  {TEXT}"))
    assert len(shown) > 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
    assert all(text == text.strip() for text in shown)
    assert shown[-1] == TEXT
    (cookie,) = (cookie for cookie in client.session.cookies if isinstance(cookie, Cookie))
    assert cookie.has_nonstandard_attr("HttpOnly")


def test_regenerate(client: ChatStreamJs) -> None:
    client.send(TEXT)
    first = client.message_id
    assert answers(client.send(None, regenerate=True))[-1] == TEXT
    assert client.message_id != first
    assert unquote(client.get("get_prompt")["prompt"]).count(TEXT) == 2  # asked once, answered once


@pytest.mark.parametrize("next_input", [TEXT, None])
def test_what_follows_an_abort_at_once(client: ChatStreamJs, next_input: str | None) -> None:
    cut = answers(client.send(LONG, abort_after=3))[-1]
    assert LONG.startswith(cut)
    shown = answers(client.send(next_input, regenerate=next_input is None, abort_after=5))
    assert (next_input or LONG).startswith(shown[-1])


def test_too_many_requests(server: Server, client: ChatStreamJs) -> None:
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(SocketChat(server.port, LONG))
        wait_until(lambda: server.has(accepted=7))
        with client._post("chat_stream", {"user_input": TEXT, "regenerate": False}) as answer:
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
            assert answer.text == '{"error":"too_many_requests"}'


def test_clear_context(client: ChatStreamJs) -> None:
    client.send(TEXT)
    cleared = {"success": True, "message": "Context successfully cleared"}
    assert client.post("clear_context", {}) == cleared
    assert client.get("get_prompt") == {"success": True, "message": "no prompt", "prompt": None}
    client.send(LONG, abort_after=1)
    assert client.post("clear_context", None) == cleared
    assert answers(client.send(TEXT))[-1] == TEXT
    assert client.get("get_prompt")["prompt"].count("One") == 2


def test_generation_params(client: ChatStreamJs) -> None:
    names = {"temperature", "top_k_value", "top_p_value"}
    answer = client.get("get_generation_params")
    assert (answer["success"], answer["message"]) == (True, "success")
    assert answer["generation_params"].keys() >= names
    given = {"temperature": 0.5, "top_k_value": 7, "top_p_value": 0.9}
    answer = client.post("set_generation_params", given)
    assert (answer["success"], answer["message"]) == (True, "success")
    assert {name: answer["generation_params"][name] for name in names} == given
    assert client.get("get_generation_params") == answer
    assert answers(client.send(TEXT))[-1] == TEXT


def test_set_feedback(client: ChatStreamJs) -> None:
    client.send(TEXT)
    feedback = {"is_like": True, "message_id": client.message_id, "form_data": {"comment": "nice"}}
    assert client.post("set_feedback", feedback).items() >= {"success": True, "message": "success"}.items()


def test_get_load_and_resources(client: ChatStreamJs) -> None:
    (worker,) = client.get("get_load")["chatstream_workers"]
    assert worker.keys() >= {"name", "processing", "waiting", "max_processing", "max_waiting"}
    (usage,) = client.get("get_resource_usage")["memory_usage"]
    assert usage.keys() == {"name", "num_gpus", "gpus", "cpu"}
    assert usage["cpu"].keys() == {"total_memory", "used_memory"}
