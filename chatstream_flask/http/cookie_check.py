"""Checks of the session cookie and of the key that signs it."""

from __future__ import annotations

import logging

from flask import Flask, Request, current_app

from ..errors import ConfigError
from ..settings import MIN_KEY_LEN, Settings


def check_cookie_settings(app: Flask, settings: Settings, logger: logging.Logger) -> None:
    """Check the settings of an app's session cookie; warn about a SECRET_KEY that can be guessed.

    :raises ConfigError: two settings contradict each other
    """
    if app.config["SESSION_COOKIE_SECURE"] and not settings.cookie_secure:
        raise ConfigError(
            "SESSION_COOKIE_SECURE is True, but CHATSTREAM_COOKIE_SECURE is False: remove one of them"
        )
    if app.secret_key and len(app.secret_key) < MIN_KEY_LEN:
        logger.warning(
            "SECRET_KEY has fewer than %d characters; who guesses it can forge every session of the app",
            MIN_KEY_LEN,
        )


class CookieCheck:
    """Warns once if clients come over plain http, which cookies for https only are not sent over."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._has_warned = False

    def __call__(self, request: Request) -> None:
        """Check the scheme of a request to the current app."""
        if self._has_warned or request.is_secure or not current_app.config["SESSION_COOKIE_SECURE"]:
            return
        self._has_warned = True
        self._logger.warning(
            "a request came over plain http, but the session cookie has the Secure attribute, and browsers "
            "send it over https only: behind an https proxy use werkzeug's ProxyFix; for plain http on your "
            "own machine set CHATSTREAM_COOKIE_SECURE (or your app's SESSION_COOKIE_SECURE) to False"
        )
