"""Settings that an app gets after its ChatStream, which needed them before."""

from __future__ import annotations

import logging

from flask import Flask


class SetUpOrder:
    """Warns once if an app got its secret key or its sessions after `init_app`, too late to count."""

    def __init__(self, app: Flask) -> None:
        """Remember what the app has when `init_app` ends."""
        self._had_secret_key = bool(app.secret_key)
        self._sessions = app.session_interface
        self._is_checked = False

    def check(self, app: Flask, logger: logging.Logger) -> None:
        """Compare with what the app has now, at its first chat request."""
        if self._is_checked:
            return
        self._is_checked = True
        if app.session_interface is not self._sessions:
            logger.warning(
                "the sessions of %r were changed after init_app, which has chosen the store of conversations "
                "by them: call Session(app), or set session_interface, before ChatStream(app=app)",
                app.name,
            )
        elif app.secret_key and not self._had_secret_key:
            logger.warning(
                "SECRET_KEY of %r was set after init_app, which therefore gave the app server-side sessions "
                "of its own: set it before ChatStream(app=app)",
                app.name,
            )
