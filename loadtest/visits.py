"""Visits: all visits of one run; their records go to a file and their times to locust's statistics."""

# mypy: allow-untyped-calls
from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import gevent

from .client import ChatClient
from .plan import Plan
from .record import FAULTS, REFUSED, RIGHT, Record, to_line
from .script import EchoScript, NameScript, Script, SmallTalkScript
from .visitor import Habits, Visitor

HEARTBEAT_SEC = 0.02


class Visits:
    """State that the users of a run share. When the time is up, visitors finish their turn."""

    def __init__(self, plan: Plan, environment: Any) -> None:
        self._plan = plan
        self.began_at = time.monotonic()
        self.num_faults = 0
        self._cpu_began = time.process_time()
        self._environment = environment
        self._file = Path(self._plan.records).open("w", encoding="utf-8")  # noqa: SIM115, closed by `close`
        self._numbers = itertools.count()
        self._write({"kind": "began_at", "value": self.began_at})
        self._heart = gevent.spawn(self._beat)

    @property
    def age_sec(self) -> float:
        return time.monotonic() - self.began_at

    def is_over(self) -> bool:
        return self.age_sec >= self._plan.duration_sec

    def visit(self, habits: Habits, host: str) -> None:
        """Hold one visitor's conversation; an exception in the load test itself counts as a fault."""
        began_at = time.monotonic()
        try:
            self._visitor(habits, host).visit()
        except Exception as error:
            self.note(
                Record(visitor="", action="visit", sent_at=began_at, ended_at=began_at, detail=repr(error))
            )

    def _visitor(self, habits: Habits, host: str) -> Visitor:
        number = next(self._numbers)
        rng = random.Random(f"{self._plan.seed}/{number}")
        script: Script
        match self._plan.model:
            case "mock":
                script = EchoScript(rng, self._plan.words)
            case "any":
                script = SmallTalkScript(rng, number)
            case _:
                script = NameScript(rng, number)
        client = ChatClient(host, script.name)
        return Visitor(client, script, rng, habits, note=self.note, sleep=gevent.sleep, is_over=self.is_over)

    def note(self, record: Record) -> None:
        self._file.write(to_line(record) + "\n")
        self.num_faults += record.verdict in FAULTS
        if record.verdict == REFUSED:
            self._row("REFUSED", record.ended_at - record.sent_at)
            return
        name = {"ask": "/chat_stream", "regenerate": "/chat_stream regenerate"}.get(record.action)
        error = AssertionError(f"{record.verdict}: {record.detail}") if record.verdict in FAULTS else None
        headers_sec = (record.headers_at or record.ended_at) - record.sent_at
        self._row("HTTP", headers_sec, name or f"/{record.action}", len(record.text), error)
        if name is not None and record.verdict == RIGHT:
            for kind, until in (
                ("QUEUE", record.started_at),
                ("TTFT", record.first_at),
                ("E2E", record.ended_at),
            ):
                if until is not None:
                    self._row(kind, until - record.sent_at)
            if gaps := record.gaps_sec:
                self._row("ITL", sum(gaps) / len(gaps))

    def close(self) -> None:
        self._heart.kill()
        self._write(
            {"kind": "ended_at", "value": min(time.monotonic(), self.began_at + self._plan.duration_sec)}
        )
        self._write({"kind": "cpu_sec", "value": time.process_time() - self._cpu_began})
        self._file.close()

    def _row(
        self,
        kind: str,
        seconds: float,
        name: str = "/chat_stream",
        length: int = 0,
        error: Exception | None = None,
    ) -> None:
        self._environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=seconds * 1000,
            response_length=length,
            exception=error,
            context={},
        )

    def _beat(self) -> None:
        """Record how late this process is, so that figures distorted by its own load are recognized."""
        while True:
            late = []
            for _ in range(round(1 / HEARTBEAT_SEC)):
                due = time.monotonic() + HEARTBEAT_SEC
                gevent.sleep(HEARTBEAT_SEC)
                late.append(round(time.monotonic() - due, 5))
            self._write({"kind": "late", "sec": late})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
