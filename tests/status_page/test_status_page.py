"""The status page: access, numbers, and that texts and files match."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_fakes import Chat, ScriptedRunner, running_chat, say, talk

from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.errors import ConfigError
from chatstream_flask.monitoring.status import live_status
from chatstream_flask.status_page.words import WORDS
from chatstream_flask.views import create_operations_blueprint

PAGE, NUMBERS, SCRIPT, STYLE = (
    "/chatstream/status",
    "/chatstream/status.json",
    "/chatstream/status/status.js",
    "/chatstream/status/status.css",
)
ROOT = Path(__file__).parents[2] / "chatstream_flask" / "status_page"
HTML = (ROOT / "templates" / "chatstream_status" / "status.html").read_text(encoding="utf-8")
JS = (ROOT / "static" / "status.js").read_text(encoding="utf-8")


@contextmanager
def status_chat(folder: Path, status: str, **config: Any) -> Iterator[tuple[Chat, FlaskClient]]:
    config = {f"CHATSTREAM_{name.upper()}": value for name, value in (config | {"status": status}).items()}
    with running_chat(folder, ScriptedRunner(), config) as chat:
        chat.app.register_blueprint(create_operations_blueprint(chat.chat_stream))
        yield chat, chat.app.test_client()


def test_off_unless_turned_on(tmp_path: Path) -> None:
    with status_chat(tmp_path, "off") as (_, client):
        assert [client.get(path).status_code for path in (PAGE, NUMBERS, SCRIPT, STYLE)] == [404] * 4


def test_open(tmp_path: Path) -> None:
    with status_chat(tmp_path, "open") as (_, client):
        page, numbers, script, style = [
            client.get(path, buffered=True) for path in (PAGE, NUMBERS, SCRIPT, STYLE)
        ]
        assert [page.status_code, numbers.status_code] == [200, 200]
        assert "script-src 'self';" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == numbers.headers["Cache-Control"] == "no-store"
        assert page.headers["Vary"] == "Accept-Language"
        assert script.content_type == "text/javascript; charset=utf-8"
        assert style.content_type == "text/css; charset=utf-8"
        assert client.get("/chatstream/status/status.html").status_code == 404


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-Admin-Key": "wrong"}, 401),
        ({"X-Admin-Key": ""}, 401),
        ({"Authorization": basic("wrong")}, 401),
        ({"Authorization": "Basic ???"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"X-Admin-Key": "鍵 an-admin-key-of-tests".encode().decode("latin-1")}, 401),
        ({"X-Admin-Key": "an-admin-key-of-tests"}, 200),
        ({"Authorization": basic("an-admin-key-of-tests")}, 200),
        ({"Authorization": "Bearer an-admin-key-of-tests"}, 200),
    ],
)
def test_with_the_admin_key_only(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    with status_chat(tmp_path, "key", admin_key="an-admin-key-of-tests") as (_, client):
        for path in (PAGE, NUMBERS, SCRIPT, STYLE):
            response = client.get(path, headers=headers, buffered=True)
            assert response.status_code == status
            assert ("WWW-Authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"status": "key"}, 'status="key" needs an admin_key'),
        ({"status": "on"}, "status must be 'off' or 'open' or 'key', not 'on'"),
        ({"status": "off", "metrics": "key"}, 'metrics="key" needs an admin_key'),
        ({"status": "key", "admin_key": ""}, "admin_key must have at least 16 characters"),
        ({"status": "key", "admin_key": 10**16}, "admin_key must be a string, or None"),
    ],
)
def test_wrong_settings(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence), status_chat(tmp_path, **config):
        pass


def test_numbers(tmp_path: Path) -> None:
    with status_chat(tmp_path, "open", max_input_len=5) as (chat, client):
        assert client.get(NUMBERS).get_json()["status"] == "not_started"
        talk(chat.client(), "hi")
        chat.runner.is_held = True
        running = say(chat.client(), "hi")
        it = client.get(NUMBERS).get_json()
        assert (it["status"], it["running"] + it["waiting"], it["max_running"]) == ("ready", 1, 2)
        assert (it["generation_tokens"], it["finished"], it["num_recent"]) == (3, {"stop": 1}, 1)
        assert all(len(values) == 3 and min(values) >= 0 for values in it["latencies"].values())
        running.close()
        chat.word()


def test_percentiles_are_those_of_the_last_minutes(tmp_path: Path) -> None:
    now = 1000.0
    with status_chat(tmp_path, "open") as (chat, _):
        engine = chat.chat_stream.engine
        engine.stats.clock = lambda: now
        engine.stats.record_finished(Outcome(finish_reason=FinishReason.STOP, total_sec=99))
        now += 301
        for i in range(1, 101):
            engine.stats.record_finished(Outcome(finish_reason=FinishReason.STOP, total_sec=i))
        latencies = live_status(engine)["latencies"]
        assert latencies["total"] == [50, 90, 99]
        assert latencies["first_token"] is None  # none had one


def test_language_is_the_browser_s(tmp_path: Path) -> None:
    with status_chat(tmp_path, "open") as (_, client):
        japanese = client.get(PAGE, headers={"Accept-Language": "ja,en;q=0.5"}).text
        assert '<html lang="ja">' in japanese and "ChatStream の状態" in japanese
        assert '<html lang="en">' in client.get(PAGE, headers={"Accept-Language": "fr"}).text


def test_both_languages_have_the_words_that_are_used() -> None:
    assert set(WORDS["en"]) == set(WORDS["ja"])
    used = set(re.findall(r"words\.(\w+)", HTML + JS)) - {"format"}
    assert used <= set(WORDS["en"])


def test_nothing_inline_that_the_policy_forbids() -> None:
    assert not re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?:", HTML)
    assert "innerHTML" not in JS


def test_script_finds_what_it_fills_in() -> None:
    ids = set(re.findall(r'(?:tell|byId|draw)\("([a-z-]+)"', JS))
    names = ("running", "waiting", "rate", "kv")
    there = set(re.findall(r' id="([a-z-]+)"', HTML)) | {
        f"{name}{end}" for name in names for end in ("", "-max", "-meter")
    }
    assert ids <= there
