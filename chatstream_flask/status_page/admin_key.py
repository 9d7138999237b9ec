"""Access for operators: nobody, everybody, or those who have the admin key."""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from flask import Request, Response, abort, request

from ..chat.request_handler import address_of
from ..chat.service import ChatService

MAX_WRONG_KEYS = 5  # of one address within a window; further keys of it are not looked at
WINDOW_SEC = 60
MAX_ADDRESSES = 1000  # that are remembered


class OperatorAccess:
    """Checks the admin key of requests, and how often an address may be wrong."""

    def __init__(self, chat_stream: ChatService) -> None:
        self._chat_stream = chat_stream
        self._wrong_keys = WrongKeys()

    def require(self, access: str) -> None:
        """Abort the current request with 404 if access is "off", and with 401 if the admin key is missing.

        :param access: "off", "open" or "key", as `CHATSTREAM_STATUS` and `CHATSTREAM_METRICS` say
        """
        if access == "off":
            abort(HTTPStatus.NOT_FOUND)
        if not self.has(access):
            _abort_unauthorized("the admin key is needed")

    def has(self, access: str) -> bool:
        """Return whether the current request has access.

        A wrong key is logged, and aborts the request with 401; too many of them in a minute abort it with
        429 whatever the key is, so that keys cannot be tried quickly.
        """
        if access != "key":
            return access == "open"
        given = _given_keys(request)
        if not given:
            return False
        address = address_of(request) or "unknown"
        if wait_sec := self._wrong_keys.wait_sec(address):
            headers = {"Retry-After": str(wait_sec)}
            abort(
                Response(
                    "too many wrong admin keys\n",
                    HTTPStatus.TOO_MANY_REQUESTS,
                    headers,
                    mimetype="text/plain",
                )
            )
        right = _digest(self._chat_stream.state.settings.admin_key or "")
        if any([hmac.compare_digest(_digest(key), right) for key in given]):
            return True
        self._wrong_keys.add(address)
        self._chat_stream.logger.warning("a wrong admin key from %s", address)
        _abort_unauthorized("the admin key is wrong")
        return False


class WrongKeys:
    """Numbers of wrong keys in the current window of each address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # end of the window, wrong keys in it; oldest first

    def wait_sec(self, address: str) -> int:
        """Return after how many seconds an address may try again; 0 if it may now."""
        with self._lock:
            ends_at, num = self._windows.get(address, (0.0, 0))
            return max(math.ceil(ends_at - self._clock()), 0) if num >= MAX_WRONG_KEYS else 0

    def add(self, address: str) -> None:
        now = self._clock()
        with self._lock:
            ends_at, num = self._windows.pop(address, (0.0, 0))
            if ends_at <= now:
                ends_at, num = now + WINDOW_SEC, 0
            self._windows[address] = (ends_at, num + 1)
            if len(self._windows) > MAX_ADDRESSES:
                del self._windows[next(iter(self._windows))]


def _given_keys(request: Request) -> list[str]:
    """Return what a request has as `X-Admin-Key`, bearer token, and password of basic authentication.

    Browsers ask for the last.
    """
    authorization = request.authorization
    given = [
        request.headers.get("X-Admin-Key"),
        authorization.token if authorization is not None else None,
        authorization.password if authorization is not None else None,
    ]
    return [key for key in given if isinstance(key, str)]


def _abort_unauthorized(message: str) -> None:
    challenge = {"WWW-Authenticate": 'Basic realm="ChatStream status", charset="UTF-8"'}
    abort(Response(f"{message}\n", HTTPStatus.UNAUTHORIZED, challenge, mimetype="text/plain"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
