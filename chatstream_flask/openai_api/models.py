"""The models that clients may name: one model under one or more names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from flask import Response, jsonify

from ..config import SamplingParams
from ..errors import ConfigError
from ..model_source import ModelSource
from .errors import ApiError


@dataclass(frozen=True)
class Models:
    """The names of the model, and the views that list them."""

    names: tuple[str, ...]
    max_model_len: int
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, names: Sequence[str] | None, source: ModelSource) -> Models:
        if names is None:
            names = [source.model_name]
        if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"model_names must be a list of names, not {names!r}")
        return cls(tuple(names), source.context_len)

    def check(self, name: str) -> None:
        if name not in self.names:
            raise ApiError(
                f"there is no model {name[:100]!r}; available: {', '.join(self.names)}",
                param="model",
                code="model_not_found",
                status=404,
            )

    def list(self) -> Response:
        return jsonify(object="list", data=[self._described(name) for name in self.names])

    def get(self, name: str) -> Response:
        self.check(name)
        return jsonify(self._described(name))

    def fingerprint(self, params: SamplingParams) -> str:
        """Return a hash that changes whenever the same request may be answered differently."""
        what = f"{version('chatstream-flask')} {self.names} {self.max_model_len} {params}"
        return f"fp_{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def _described(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "chatstream_flask",
            "max_model_len": self.max_model_len,
        }
