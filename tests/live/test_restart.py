"""What survives the end of a server process."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatstream_flask.client import read_events, text_of
from chatstream_flask.conversation.file_sessions import JSONFileCache

from .client import EVENTS, Visitor, wait_until
from .server import start, start_mock

pytestmark = pytest.mark.server


def test_a_name_is_remembered_after_a_killed_server(kind: str, tmp_path: Path) -> None:
    """The second gunicorn has --preload: the model is loaded in one process and runs in its fork."""
    with start(kind, tmp_path) as server, Visitor(server.port) as visitor:
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
