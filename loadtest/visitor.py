"""Visitor: asks, waits, asks again; sometimes regenerates, clears the conversation or disconnects."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .client import ChatClient
from .record import FAILED, LEFT, MIXED_UP, REFUSED, RIGHT, Record
from .script import Script

MAX_EVENTS_BEFORE_LEAVING = 5
MIN_RETRY_SEC = 0.5


@dataclass(frozen=True, kw_only=True)
class Habits:
    """Behaviour of visitors; `regenerate`, `clear` and `leave` are probabilities per turn."""

    max_turns: int = 5
    think_sec: float = 1.0  # mean, exponential
    regenerate: float = 0.1
    clear: float = 0.05
    leave: float = 0.05
    needs_all_apis: bool = True  # an app without /clear_context or /conversation is a fault


class Visitor:
    """Holds one conversation and at its end compares it with the one that the server has stored."""

    def __init__(
        self,
        client: ChatClient,
        script: Script,
        rng: random.Random,
        habits: Habits,
        *,
        note: Callable[[Record], object],
        sleep: Callable[[float], object],
        is_over: Callable[[], bool],  # the run is over: start no more turns
    ) -> None:
        self._client = client
        self._script = script
        self._rng = rng
        self._habits = habits
        self._note = note
        self._sleep = sleep
        self._is_over = is_over
        self._turns: list[tuple[str, str]] = []  # message and reply
        self._refused: str | None = None  # message to send again

    def visit(self) -> None:
        """Hold one conversation, until its end or until the visitor disconnects during a reply."""
        for number in range(self._habits.max_turns):
            if number:
                self._sleep(self._thinking_sec())
            if self._is_over():
                break
            if self._turns and self._rng.random() < self._habits.clear:
                self._clear()
            record = self._next_turn()
            self._note(record)
            if record.verdict in (REFUSED, FAILED):
                self._sleep(MIN_RETRY_SEC)
            if record.verdict in (LEFT, FAILED):
                return  # what the server stores now is undefined
        if self._turns:
            self._compare()

    def _next_turn(self) -> Record:
        is_regenerated = bool(self._turns) and self._rng.random() < self._habits.regenerate
        asked = self._turns[-1][0] if is_regenerated else self._refused or self._script.next_message()
        leave_after = None
        if self._rng.random() < self._habits.leave:
            leave_after = self._rng.randint(1, MAX_EVENTS_BEFORE_LEAVING)
        if is_regenerated:
            record = self._client.ask("regenerate", {"regenerate": True}, leave_after)
        else:
            record = self._client.ask("ask", {"user_input": asked}, leave_after)
        if record.verdict == RIGHT:  # the reply is complete
            record.verdict, record.detail = self._script.judge(asked, record.text)
            if is_regenerated:
                self._turns.pop()
            self._turns.append((asked, record.text))
        self._refused = asked if record.verdict == REFUSED and not is_regenerated else None
        return record

    def _clear(self) -> None:
        record, _ = self._client.fetch("POST", "/clear_context")
        if self._is_absent(record):
            return
        self._note(record)
        self._turns.clear()
        self._refused = None
        self._script.restart()

    def _compare(self) -> None:
        record, data = self._client.fetch("GET", "/conversation")
        if self._is_absent(record):
            return
        if record.verdict == RIGHT and (fault := self._fault_of(data)):
            record.verdict, record.detail = MIXED_UP, fault
        self._note(record)

    def _is_absent(self, record: Record) -> bool:
        """Return whether the app has no such API and need not have it."""
        return record.status == HTTPStatus.NOT_FOUND and not self._habits.needs_all_apis

    def _fault_of(self, data: dict[str, Any]) -> str:
        kept = [message["text"] for message in data["messages"]]
        said = [text for turn in self._turns for text in turn]
        if kept == said:
            return ""
        return f"{self._script.name} said and was told {said}, the server has stored {kept}"[:1000]

    def _thinking_sec(self) -> float:
        return self._rng.expovariate(1 / self._habits.think_sec) if self._habits.think_sec else 0.0
