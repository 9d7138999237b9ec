"""LineUp: the contenders of a run, and why others were left out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from .actor_process import ActorFailed, ActorProcess
from .contender import Contender
from .entry import ENTRIES, Entry
from .options import Options
from .say import say
from .settings import Settings

T = TypeVar("T")


class LineUp:
    """Running contenders; one that fails is removed, with the reason, and the others continue."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self._running: dict[str, Contender] = {}

    def start(self, options: Options, settings: Settings) -> None:
        chosen = {name: ENTRIES[name] for name in options.contenders}
        if any(entry.needs_files for entry in chosen.values()) and not options.is_on_cuda:
            with ActorProcess("benchmark.model_files", "ModelFiles", settings) as files:
                files.call("write")
        for name, entry in chosen.items():
            self._start_one(name, entry, options, settings)

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def attempt(self, name: str, do: Callable[[Contender], T], when: str) -> T | None:
        """Return the result; None if the contender has been left out, or fails now."""
        if name not in self._running:
            return None
        try:
            return do(self._running[name])
        except (ActorFailed, RuntimeError, ValueError, OSError) as error:
            self._drop(name, f"{when}: {error}")
            return None

    def close(self) -> None:
        for contender in self._running.values():
            contender.close()

    def _start_one(self, name: str, entry: Entry, options: Options, settings: Settings) -> None:
        if options.is_on_cuda and not entry.is_on_cuda:
            self.left_out[name] = "supported on CPU only"
            return
        python = options.llama_python if name == "llama.cpp" else sys.executable
        try:
            self._running[name] = Contender(entry, settings, python)
        except (ActorFailed, OSError) as error:
            self._drop(name, f"{error}")

    def _drop(self, name: str, reason: str) -> None:
        say(f"{name} is left out: {reason}")
        self.left_out[name] = reason
        if name in self._running:
            self._running.pop(name).close()
