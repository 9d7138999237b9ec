"""Settings of cookies that contradict each other, or that leave a visitor without a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask_fakes import make_chat, running_chat

from chatstream_flask.errors import ConfigError


def test_contradictory_settings_are_refused(tmp_path: Path) -> None:
    chat = make_chat(tmp_path, config={"SESSION_COOKIE_SECURE": True, "CHATSTREAM_COOKIE_SECURE": False})
    with pytest.raises(ConfigError, match="SESSION_COOKIE_SECURE is True, but CHATSTREAM_COOKIE_SECURE is"):
        chat.chat_stream.init_app(chat.app)


@pytest.mark.parametrize(("key", "num_warnings"), [("x" * 15, 1), (b"x" * 15, 1), ("x" * 16, 0)])
def test_a_short_secret_key_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str | bytes, num_warnings: int
) -> None:
    with running_chat(tmp_path, config={"SECRET_KEY": key}):
        assert (
            len([it for it in caplog.messages if it.startswith("SECRET_KEY has fewer than 16")])
            == num_warnings
        )


@pytest.mark.parametrize(
    ("config", "url", "num_warnings"),
    [
        ({"CHATSTREAM_COOKIE_SECURE": True}, "http://localhost", 1),
        ({"CHATSTREAM_COOKIE_SECURE": True}, "https://localhost", 0),
        ({"CHATSTREAM_COOKIE_SECURE": False}, "http://localhost", 0),
        (
            {"CHATSTREAM_COOKIE_SECURE": True, "SECRET_KEY": "x" * 16, "SESSION_COOKIE_SECURE": True},
            "http://localhost",
            1,
        ),
    ],
)
def test_a_secure_cookie_over_plain_http_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, config: dict[str, Any], url: str, num_warnings: int
) -> None:
    with running_chat(tmp_path, config=config) as chat:
        for _ in range(2):
            chat.client().post("/chat_stream", json={"user_input": "hi"}, base_url=url, buffered=True)
            chat.word()
    warnings = [message for message in caplog.messages if "the session cookie has the Secure" in message]
    assert len(warnings) == num_warnings
