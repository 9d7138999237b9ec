"""What survives the end of a server process."""

from __future__ import annotations

import signal
from http import HTTPStatus
from pathlib import Path

import pytest

from chatstream_flask.client import read_events, text_of
from chatstream_flask.conversation.json_file_cache import JSONFileCache

from .client import EVENTS, Visitor, wait_until
from .server import start, start_mock
from .test_openai_client import client_of

pytestmark = pytest.mark.server


def test_a_name_is_remembered_after_a_killed_server(kind: str, tmp_path: Path) -> None:
    """The second server has a model; under gunicorn it is loaded in one process and runs in its fork."""
    with start_mock(kind, tmp_path, {"type": "echo"}) as server, Visitor(server.port) as visitor:
        with visitor.post("My name is Lucy.", accept=EVENTS) as response:
            assert any(event.name == "done" for event in read_events(response.iter_content(1)))
            server.kill()  # SIGKILL as soon as the client knows that its turn is done
        cookies = visitor.session.cookies
    with start(kind, tmp_path, is_preloaded=kind == "gunicorn") as server:
        with Visitor(server.port) as visitor:
            visitor.session.cookies = cookies
            assert "Lucy" in text_of(visitor.ask_for_events("What is my name?"))
        server.check_idle()
        assert server.terminate() == 0


def test_each_turn_before_a_restart_counts_and_what_has_expired_goes(kind: str, tmp_path: Path) -> None:
    """The mock's replies begin with the number of the turn. A server sweeps the folders of all its apps."""
    cookies = None
    others = JSONFileCache(tmp_path / "second")
    expired = Path(others._get_filename("session:old"))
    for turn in (1, 3):
        others.set("session:old", {}, timeout=-10)
        with start_mock(kind, tmp_path, {"type": "round", "time_per_token_sec": 0.0}) as server:
            with Visitor(server.port) as visitor:
                if cookies is not None:
                    visitor.session.cookies = cookies
                assert visitor.ask("Hello!").startswith(f"{turn}.")
                assert visitor.ask("Hello again!").startswith(f"{turn + 1}.")
                cookies = visitor.session.cookies
            wait_until(lambda: not expired.exists())
            assert server.terminate() == 0


def test_a_reload_waits_for_the_replies_of_the_previous_worker(tmp_path: Path) -> None:
    """Both use one folder: chats are refused until the previous worker has ended, and no turn is lost."""
    with start_mock("gunicorn", tmp_path, {"type": "round", "time_per_token_sec": 0.08}) as server:
        with Visitor(server.port) as visitor, visitor.post("Hello!") as running:
            former = server.state["pid"]
            server.process.send_signal(signal.SIGHUP)
            assert running.content.startswith(b"1.")
            turns = []

            def is_answered() -> bool:
                with visitor.post("Hello again!") as response:
                    assert response.status_code in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
                    turns.append(response.content)
                    return response.ok

            wait_until(is_answered)
            assert turns[-1].startswith(b"2.")
            assert server.state["pid"] != former
        assert server.terminate() == 0


def test_background_responses_of_a_killed_server_are_there_and_none_runs_for_ever(tmp_path: Path) -> None:
    mock_params = {"type": "echo", "time_per_token_sec": 0.1}
    with start_mock("waitress", tmp_path, mock_params) as server, client_of(server) as client:
        ended = client.responses.create(model="mock", input="Hello!", background=True)
        wait_until(lambda: client.responses.retrieve(ended.id).status == "completed")
        events = client.responses.create(model="mock", input="la " * 200, background=True, stream=True)
        cut = next(event.response for event in events if event.type == "response.in_progress")
        next(event for event in events if event.type == "response.output_text.delta")
        server.kill()
    with start_mock("waitress", tmp_path, mock_params) as server, client_of(server) as client:
        assert client.responses.retrieve(ended.id).output_text == "Hello!"
        failed = client.responses.retrieve(cut.id)
        assert failed.status == "failed" and failed.error is not None
        (last,) = client.responses.retrieve(cut.id, stream=True)
        assert last.type == "response.failed"
        assert server.terminate() == 0
