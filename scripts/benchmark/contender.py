"""Contender: one way to generate text, called in its own process or over HTTP."""

from __future__ import annotations

import sys
import time
from typing import Any

from .actor_process import ActorProcess
from .dialect import Dialect
from .entry import Entry
from .http_client import ask_all
from .http_reply import HttpReply
from .round import Round
from .settings import Settings
from .words import tokens_of


class Contender:
    """Runs rounds in the process of one contender."""

    def __init__(self, entry: Entry, settings: Settings, python: str = sys.executable) -> None:
        self._entry = entry
        self._more = {"model": settings.model_folder} if entry.needs_model_name else {}
        self.port: int | None = None  # None: without HTTP
        self.actor = ActorProcess(f"benchmark.contenders.{entry.module}", entry.class_name, settings, python)

    def prepare(self, streams: int, context_len: int) -> None:
        self.port = self.actor.call("prepare", streams=streams, context_len=context_len)

    def play(self, prompts: list[list[int]], new_tokens: int) -> Round:
        """Generate a reply to each prompt at the same time.

        :raises ActorFailed: the contender's process failed
        :raises RuntimeError: a request failed
        :raises ValueError: a reply has a wrong number of tokens
        """
        if self._entry.dialect is None or self.port is None:
            told: dict[str, Any] = self.actor.call("play", prompts=prompts, new_tokens=new_tokens)
            played = Round(**told)
        else:
            played = self._play_over_http(self.port, self._entry.dialect, prompts, new_tokens)
        played.check(len(prompts), new_tokens)
        return played

    def _play_over_http(
        self, port: int, dialect: Dialect, prompts: list[list[int]], new_tokens: int
    ) -> Round:
        requests = [dialect.request(prompt, new_tokens, **self._more) for prompt in prompts]
        before = time.process_time()
        with self.actor.awake():
            replies = ask_all(port, requests)
        cpu_sec = time.process_time() - before
        return Round(
            total_sec=max(reply.ended_at for reply in replies) - replies[0].asked_at,
            first_token_sec=[first_token_at(reply, dialect) - reply.asked_at for reply in replies],
            replies=[tokens_of(dialect.text(reply.body)) for reply in replies],
            client_cpu_sec=cpu_sec,
        )

    def close(self) -> None:
        self.actor.close()


def first_token_at(reply: HttpReply, dialect: Dialect) -> float:
    return reply.time_when(lambda body: bool(dialect.text(body).strip()))
