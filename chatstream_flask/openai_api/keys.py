"""API keys: bearer tokens, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from flask import Request

from ..chat.request_handler import address_of
from ..settings import KEY_DIGEST
from .errors import ApiError


def check_key(authorization: str, keys: Sequence[str] | None) -> None:
    """Check the API key of a request.

    :param authorization: the header, "Bearer ..."
    :param keys: None needs no key
    :raises ApiError: the key is missing or wrong
    """
    if keys is None:
        return
    digest = _given_digest(authorization)
    is_known = False
    for key in keys:  # all of them, so that the time depends on none
        is_known |= hmac.compare_digest(digest, _digest_of(key))
    if not authorization.lower().startswith("bearer ") or not is_known:
        message = (
            "the API key is wrong" if authorization else "an API key is needed: Authorization: Bearer KEY"
        )
        raise ApiError(message, code="invalid_api_key", status=401)


def visitor_of(request: Request, keys: Sequence[str] | None) -> str | None:
    """Return the visitor that the limits count for: the key, or the address if there are no keys."""
    if keys is None:
        return address_of(request)
    return f"key:{_given_digest(request.headers.get('Authorization', ''))}"


def cache_owner_of(request: Request, keys: Sequence[str] | None, user: str | None) -> str | None:
    """Return whose cached prompts a request may reuse: those of its visitor, for the same user field.

    None, if the visitor is an address that is only that of a proxy: everybody behind it would be one, and
    `cached_tokens` would tell each what the others ask.
    """
    is_forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    if keys is None and is_forwarded and "werkzeug.proxy_fix.orig" not in request.environ:
        return None
    visitor = visitor_of(request, keys)
    return None if visitor is None else f"openai {visitor} {user or ''}"


def _given_digest(authorization: str) -> str:
    given = authorization.partition(" ")[2].strip()
    return hashlib.sha256(given.encode("utf-8", "surrogateescape")).hexdigest()


def _digest_of(key: str) -> str:
    if key.startswith(KEY_DIGEST):
        return key.removeprefix(KEY_DIGEST).lower()
    return hashlib.sha256(key.encode()).hexdigest()
