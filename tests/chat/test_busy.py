"""A request whose conversation has a running reply: refused, queued, or replacing that reply."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import TIMEOUT
from flask_fakes import ScriptedRunner, cookie_name, read_events, read_until, running_chat, say, talk

from chatstream_flask import ChatStream
from chatstream_flask.errors import ConfigError


def test_refused_by_default(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(is_held=True)) as chat:
        client = chat.client()
        first = say(client, "one")
        second = say(client, "two")
        assert (second.status_code, second.get_json()["error"]) == (409, "conversation_busy")
        chat.runner.release()
        assert list(read_events(first))[-1].name == "done"
        assert chat.history(client) == ["one", "ok"]


def test_a_queued_request_sees_the_reply_it_waited_for(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(is_held=True), on_busy="queue") as chat:
        client = chat.client()
        first = say(client, "one")
        cookie = client.get_cookie(cookie_name(client))
        assert cookie is not None
        tab = chat.client()
        tab.set_cookie(cookie_name(tab), cookie.value)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(talk, tab, "two")
            chat.runner.release()
            assert list(read_events(first))[-1].name == "done"
            assert second.result(TIMEOUT) == "ok"
        assert chat.runner.prompts == ["U:one|A:", "U:one|A:ok|U:two|A:"]
        assert chat.history(client) == ["one", "ok", "two", "ok"]


def test_a_replacing_request_ends_the_reply_and_keeps_its_part(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(is_held=True), on_busy="replace") as chat:
        client = chat.client()
        first = read_events(say(client, "one"))
        chat.runner.allow()
        read_until(first, "text")
        chat.runner.is_held = False
        assert talk(client, "two") == "ok"
        last = list(first)[-1]
        assert (last.name, last.data["finish_reason"]) in (("done", "cancelled"), ("done", "stop"))
        history = chat.history(client)
        assert history[0] == "one" and history[2:] == ["two", "ok"]
        assert history[1] in ("o~", "ok")  # it may just have come to its own end


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_busy must be one of 'reject', 'queue', 'replace', not 'wait'"):
        ChatStream(use_mock_response=True, on_busy="wait")
    with pytest.raises(ConfigError, match="context_policy must be one of 'error', "):
        ChatStream(use_mock_response=True, context_policy="drop")
