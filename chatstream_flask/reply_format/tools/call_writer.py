"""The calls that a reader finds, as deltas."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..deltas import CALLS, Delta, make_call
from .characters import BrokenText

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class CallWriter:
    """Collects the calls of a reply; the arguments of each are written in pieces.

    A call that is abandoned has been announced already if calls are streamed; otherwise nobody hears of it.
    """

    def __init__(
        self,
        deltas: list[Delta],
        tools: Sequence[dict[str, Any]],
        *,
        make_id: Callable[[], str],
        streams: bool,
    ) -> None:
        """Start without calls.

        :param deltas: where deltas are appended
        :param tools: the tools that the model was shown, in OpenAI's format
        :param streams: tell of a call while it is written, and not only when it is complete
        """
        self.num_complete = 0
        self.is_open = False  # whether a call has begun and not ended
        self._parameters = {t["function"]["name"]: t["function"].get("parameters") for t in tools}
        self._make_id = make_id
        self._streams = streams
        self._name = ""
        self._arguments = ""  # of the open call, as far as no delta has them
        self._is_announced = False  # whether a delta has told of the open call
        self._num_announced = 0
        self._deltas = deltas

    def check(self, name: str, *, is_known: bool = False) -> None:
        """Raise BrokenText if this cannot be a function's name, or `is_known` is set and no tool has it."""
        if not NAME.fullmatch(name) or (is_known and name not in self._parameters):
            raise BrokenText

    def schema_of(self, name: str, parameter: str) -> Any:
        """Return the JSON schema of a parameter; None if there is none."""
        schema = self._parameters.get(name)
        properties = schema.get("properties") if isinstance(schema, dict) else None
        return properties.get(parameter) if isinstance(properties, dict) else None

    def begin(self, name: str) -> None:
        self.check(name)
        self._name, self._arguments = name, ""
        self.is_open, self._is_announced = True, False

    def write(self, piece: str) -> None:
        self._arguments += piece

    def end(self) -> None:
        self._tell()
        self.is_open = False
        self.num_complete += 1

    def add(self, name: str, arguments: str) -> None:
        """Write a call whose arguments are all known."""
        self.begin(name)
        self.write(arguments)
        self.end()

    def abandon(self) -> None:
        """Drop the open call, if there is one: it cannot be completed."""
        self.tell()
        self.is_open = False

    def tell(self) -> None:
        """Append a delta with what is new of the open call, if calls are streamed."""
        if self.is_open and self._streams:
            self._tell()

    def _tell(self) -> None:
        arguments, self._arguments = self._arguments, ""
        if not self._is_announced:
            call = make_call(self._num_announced, self._name, arguments) | {"id": self._make_id()}
            self._num_announced += 1
            self._is_announced = True
        elif arguments:
            call = {"index": self._num_announced - 1, "function": {"arguments": arguments}}
        else:
            return
        self._deltas.append({CALLS: [call]})
