"""Whether a caller has the admin key."""

from __future__ import annotations

import hashlib
import hmac

from flask import Request


def has_admin_key(request: Request, key: str) -> bool:
    """As `X-Admin-Key`, as a bearer token, or as the password of HTTP basic authentication, for browsers.

    Takes the same time for every wrong key.
    """
    authorization = request.authorization
    given = [
        request.headers.get("X-Admin-Key"),
        authorization.token if authorization is not None else None,
        authorization.password if authorization is not None else None,
    ]
    return any([_is_same(candidate, key) for candidate in given if isinstance(candidate, str)])


def _is_same(given: str, key: str) -> bool:
    return hmac.compare_digest(_digest(given), _digest(key))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
