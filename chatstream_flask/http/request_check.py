"""Checks of a request's headers: the host that it names, and the page that a browser sent it from.

Both are attacks from a web page that somebody has open. A page of another site may send a request with the
visitor's cookies, or from within the visitor's network (cross-site request forgery). A page may also let the
name of its own server point to this one, so that to the browser both are one site (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from flask import Request

from ..config import shown
from ..errors import HostNotAllowed, OriginNotAllowed

SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}  # RFC 9110, section 9.2.1
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def check_host(request: Request, allowed: Collection[str] | None) -> None:
    """Check the host that a request names.

    :param allowed: names and addresses in lower case without a port; `.example.com` also allows every name
        that ends so. None allows all
    :raises HostNotAllowed: it is none of them
    """
    if allowed is None:
        return
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:  # brackets without an IPv6 address
        host = ""
    if host not in allowed and not any(
        name.startswith(".") and f".{host}".endswith(name) for name in allowed
    ):
        raise HostNotAllowed(
            f"this server is not known as {shown(host)}: CHATSTREAM_ALLOWED_HOSTS has the names it answers to"
        )


def check_origin(request: Request, allowed: Collection[str]) -> None:
    """Check that a request which may change something does not come from a page of another origin.

    Browsers say where a request comes from in `Sec-Fetch-Site` (only to https and to their own machine) and
    in `Origin`. Other clients send neither, and are not refused. The rule is that of
    `CrossOriginProtection` in Go's net/http.

    :param allowed: other origins whose pages may send requests, such as `https://www.example.com`
    :raises OriginNotAllowed: it comes from the page of another origin
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() in allowed:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        is_own = origin is None or origin.lower().partition("://")[2] == request.host.lower()
    else:
        is_own = site in ("same-origin", "none")  # "none": the user did it, not a page
    if not is_own:
        raise OriginNotAllowed(
            f"a page of {'another origin' if origin is None else shown(origin)} may not send this request: "
            "CHATSTREAM_ALLOWED_ORIGINS has the origins that may"
        )
