"""The check of the admin key."""

from __future__ import annotations

import hashlib
import hmac

from flask import Request


def has_admin_key(request: Request, key: str) -> bool:
    """Return whether the request has the admin key, compared in constant time.

    It is accepted as `X-Admin-Key`, as a bearer token, and as the password of basic authentication, which
    browsers ask for.
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
