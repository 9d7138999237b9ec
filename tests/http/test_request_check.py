"""Hosts that a request may name, and pages that it may come from."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from chatstream_flask.errors import HostNotAllowed, OriginNotAllowed
from chatstream_flask.http.request_check import LOOPBACK_HOSTS, check_host, check_origin


def request_with(method: str = "POST", host: str = "a.example", **headers: str) -> Request:
    environ = EnvironBuilder("/", method=method, headers=list(headers.items())).get_environ()
    environ["HTTP_HOST"] = host
    return Request(environ)


@pytest.mark.parametrize(
    ("host", "allowed", "is_allowed"),
    [
        ("localhost", LOOPBACK_HOSTS, True),
        ("LocalHost:3000", LOOPBACK_HOSTS, True),
        ("127.0.0.1:3000", LOOPBACK_HOSTS, True),
        ("[::1]:3000", LOOPBACK_HOSTS, True),
        ("[::2]:3000", LOOPBACK_HOSTS, False),
        ("evil.example", LOOPBACK_HOSTS, False),
        ("localhost.evil.example", LOOPBACK_HOSTS, False),
        ("localhost@evil.example", LOOPBACK_HOSTS, False),
        ("evil.example:80@localhost", LOOPBACK_HOSTS, False),
        ("localhost\t", LOOPBACK_HOSTS, False),
        ("[localhost", LOOPBACK_HOSTS, False),
        ("", LOOPBACK_HOSTS, False),
        ("a.example", [".example"], True),
        ("a.b.example", [".b.example"], True),
        ("b.example", [".b.example"], True),
        ("ab.example", [".b.example"], False),
        ("evil.example", None, True),
    ],
)
def test_host(host: str, allowed: list[str] | None, is_allowed: bool) -> None:
    request = request_with(host=host)
    if is_allowed:
        check_host(request, allowed)
    else:
        with pytest.raises(HostNotAllowed):
            check_host(request, allowed)


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),  # no browser
        ({"Origin": "http://a.example"}, True),
        ({"Origin": "https://a.example"}, True),  # behind a proxy that has the certificate
        ({"Origin": "https://A.example"}, True),
        ({"Origin": "https://a.example:8443"}, False),
        ({"Origin": "https://a.example.evil"}, False),
        ({"Origin": "https://b.example"}, True),  # allowed
        ({"Origin": "http://b.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://b.example"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://a.example"}, False),
    ],
)
def test_origin(headers: dict[str, str], is_allowed: bool) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "ANY"):
        request = request_with(method, **headers)
        if is_allowed:
            check_origin(request, ["https://b.example"])
        else:
            with pytest.raises(OriginNotAllowed):
                check_origin(request, ["https://b.example"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_only_reads_may_come_from_any_page(method: str) -> None:
    check_origin(request_with(method, Origin="https://evil.example"), [])
