"""Settings that act on what the apps of one ChatStream share: its engine and its logger."""

from __future__ import annotations

from flask import Flask

from ..errors import ConfigError
from ..settings import Settings

NAMES = ("hung_after_sec", "locale")


class SharedSettings:
    """The values of the first app, which all further apps must have too."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}

    def check(self, app: Flask, settings: Settings) -> None:
        """Check the settings of a further app.

        :raises ConfigError: a value differs from that of the first app
        """
        for name in NAMES:
            value = getattr(settings, name)
            first = self._values.setdefault(name, value)
            if value != first:
                raise ConfigError(
                    f"CHATSTREAM_{name.upper()} is {value!r} in {app.name!r}, but {first!r} in the first app "
                    "of this ChatStream: set the same value in all apps that share it"
                )
