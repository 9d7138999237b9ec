"""The models that clients may name: one model under one or more names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from flask import Response, jsonify

from ..chat.service import ChatService
from ..config import SamplingParams
from ..errors import ConfigError
from .errors import ApiError

ANY_MODEL = "*"  # among the aliases: whatever name a client gives


@dataclass(frozen=True)
class Models:
    """The names of the model, and the views that list them; further names are the app's aliases."""

    service: ChatService
    names: tuple[str, ...]
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, names: Sequence[str] | None, service: ChatService) -> Models:
        if names is None:
            names = [service.source.model_name]
        if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"model_names must be a list of names, not {names!r}")
        return cls(service, tuple(names))

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names and the app's aliases."""
        return (*self.names, *self.service.state.settings.model_aliases)

    def resolve(self, name: str | None) -> str:
        """Return the name that the answer has: the one that was given, else the first.

        :raises ApiError: the model has no such name
        """
        names = self.all_names
        if name is None:
            return self.names[0]
        if name not in names and ANY_MODEL not in names:
            raise ApiError(
                f"there is no model {name[:100]!r}; available: {', '.join(names)}",
                param="model",
                code="model_not_found",
                status=404,
            )
        return name

    def list(self) -> Response:
        names = [name for name in self.all_names if name != ANY_MODEL]
        return jsonify(object="list", data=[self._described(name) for name in names])

    def get(self, name: str) -> Response:
        return jsonify(self._described(self.resolve(name)))

    def fingerprint(self, params: SamplingParams) -> str:
        """Return a hash that changes whenever the same request may be answered differently."""
        what = f"{version('chatstream-flask')} {self.names} {self.service.source.context_len} {params}"
        return f"fp_{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def _described(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "chatstream_flask",
            "max_model_len": self.service.source.context_len,
        }
