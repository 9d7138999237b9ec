"""Whose prompts a request may reuse, and so learn of from `cached_tokens`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Request
from flask_fakes import ScriptedSource, make_chat, set_source, stopping
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder

from chatstream_flask import ChatStream
from chatstream_flask.errors import ConfigError
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.openai_api.keys import cache_owner_of

DEFAULT = "You are a helpful assistant, made by somebody."
DECLARED = "Answer questions about the shop that sells ladders."


def owner_of(
    address: str, user: str = "", headers: dict[str, str] | None = None, *, has_proxy_fix: bool = False
) -> str | None:
    builder = EnvironBuilder(
        "/", headers=list((headers or {}).items()), environ_base={"REMOTE_ADDR": address}
    )
    environ = builder.get_environ()
    if has_proxy_fix:
        ProxyFix(lambda environ, start_response: ())(environ, lambda status, headers, error=None: print)
    return cache_owner_of(Request(environ), None, user)


def test_an_address_and_a_user_reuse_their_own() -> None:
    owners = [owner_of(address, user) for address in ("192.0.2.1", "192.0.2.2") for user in ("", "a", "b")]
    assert len(set(owners)) == 6 and None not in owners


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}])
def test_visitors_that_a_proxy_hides_reuse_nothing(headers: dict[str, str]) -> None:
    assert owner_of("127.0.0.1", "a", headers) is None


def test_visitors_that_a_proxy_names_reuse_their_own() -> None:
    first, second = (
        owner_of("127.0.0.1", "a", {"X-Forwarded-For": address}, has_proxy_fix=True)
        for address in ("192.0.2.7", "192.0.2.8")
    )
    assert first and second and first != second


class WithDefaultSystem(ScriptedSource):
    """Its chat template writes a system text where the messages have none."""

    def encode_messages(self, messages: Any, tools: Any, template_kwargs: Any) -> list[int]:
        has_system = messages[0]["role"] == "system"
        return super().encode_messages(
            messages if has_system else [{"role": "system", "content": DEFAULT}, *messages],
            tools,
            template_kwargs,
        )


@pytest.mark.parametrize(
    ("system", "num_shared"),
    [
        (None, len(f"S:{DEFAULT}|U:")),
        (DECLARED, len(f"S:{DECLARED}|U:")),
        (DECLARED[:25] + " and private", len(f"S:{DECLARED[:25]}")),
        ("my own secret system text", 0),
    ],
)
def test_strangers_share_what_the_app_declares_and_what_the_template_writes(
    tmp_path: Path, system: str | None, num_shared: int
) -> None:
    """Two callers behind a proxy that names neither."""
    chat = make_chat(tmp_path, shared_system_texts=[DECLARED])
    set_source(chat.chat_stream, WithDefaultSystem(chat.runner, 1024))
    chat.chat_stream.init_app(chat.app)
    chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
    head = [] if system is None else [{"role": "system", "content": system}]
    messages = [*head, {"role": "user", "content": "the same question"}]
    with stopping(chat):
        details = [
            chat.client()
            .post(
                "/v1/chat/completions",
                json={"model": "scripted", "messages": messages},
                headers={"X-Forwarded-For": address},
            )
            .get_json()["usage"]["prompt_tokens_details"]
            for address in ("192.0.2.7", "192.0.2.8")
        ]
    assert [detail["cached_tokens"] for detail in details] == [0, num_shared]


def test_shared_system_texts_are_checked() -> None:
    for wrong in ("one text", [""], 5, None):
        with pytest.raises(ConfigError, match="shared_system_texts must be a list of texts that are not"):
            ChatStream(use_mock_response=True, shared_system_texts=wrong)  # type: ignore[arg-type]
