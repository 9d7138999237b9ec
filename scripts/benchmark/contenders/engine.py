"""Contender: this project's engine, without HTTP."""

from __future__ import annotations

from typing import Any

from ..bare_engine import BareEngine
from ..settings import Settings
from ..words import tokens_of


class EngineContender:
    """A BareEngine with one slot per stream."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: BareEngine | None = None

    def prepare(self, streams: int, context_len: int) -> None:
        self.close()
        self._engine = BareEngine(self._settings, streams, context_len)

    def play(self, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        assert self._engine is not None
        replies = [self._engine.ask(prompt, new_tokens) for prompt in prompts]
        for reply in replies:
            reply.wait()
        return {
            "total_sec": max(reply.times.at[-1] for reply in replies) - replies[0].asked_at,
            "first_token_sec": [reply.times.at[0] - reply.asked_at for reply in replies],
            "replies": [tokens_of(reply.request.text) for reply in replies],
        }

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None
