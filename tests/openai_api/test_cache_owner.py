"""Whose prompts a request may reuse, and so learn of from `cached_tokens`."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder

from chatstream_flask.openai_api.keys import cache_owner_of


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
