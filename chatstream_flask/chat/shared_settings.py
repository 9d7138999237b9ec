"""Settings that act on what the apps of one ChatStream share: its engine and its logger."""

from __future__ import annotations

from flask import Flask

from ..errors import ConfigError
from ..settings import Settings

NAMES = ("hung_after_sec", "locale", "prefill_priority", "shared_redis")


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
                is_secret = not Settings.__dataclass_fields__[name].repr
                values = ("one URL", "another") if is_secret else (repr(value), repr(first))
                raise ConfigError(
                    f"CHATSTREAM_{name.upper()} is {values[0]} in {app.name!r}, but {values[1]} in the first "
                    "app of this ChatStream: set the same value in all apps that share it"
                )
