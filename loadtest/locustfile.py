"""Locust's users: those who come back when they are done (closed arrival), and those who come when they come
(open arrival: one locust user that spawns visitors at Poisson times, however many are still there).

Rows beside the request's own, whose time is that of the headers: QUEUE (to a slot), TTFT (to the first text),
ITL (mean between arrivals of text), E2E, REFUSED.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, constant, events, task

from loadtest.arrival import PROFILES, poisson_arrivals
from loadtest.client import ChatClient
from loadtest.plan import Plan
from loadtest.record import FAULTS, REFUSED, RIGHT, Record, to_line
from loadtest.script import EchoScript, NameScript, Script
from loadtest.visitor import Habits, Visitor

HEARTBEAT_SEC = 0.02
PLAN = Plan.of_environ()


class Run:
    """What the users of one run share. It is over when the time is; visitors then finish their turn."""

    def __init__(self, environment: Any) -> None:
        self.began_at = time.monotonic()
        self.num_faults = 0
        self._cpu_began = time.process_time()
        self._environment = environment
        self._file = Path(PLAN.records).open("w", encoding="utf-8")  # noqa: SIM115, closed by `close`
        self._numbers = itertools.count()
        self._write({"kind": "began_at", "value": self.began_at})
        self._heart = gevent.spawn(self._beat)

    @property
    def age_sec(self) -> float:
        return time.monotonic() - self.began_at

    def is_over(self) -> bool:
        return self.age_sec >= PLAN.duration_sec

    def visitor(self, habits: Habits, host: str) -> Visitor:
        number = next(self._numbers)
        rng = random.Random(f"{PLAN.seed}/{number}")
        script: Script = EchoScript(rng, PLAN.words) if PLAN.model == "mock" else NameScript(rng, number)
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
        self._write({"kind": "ended_at", "value": min(time.monotonic(), self.began_at + PLAN.duration_sec)})
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
        """How late this process is: figures that it spoiled itself must be seen."""
        while True:
            late = []
            for _ in range(round(1 / HEARTBEAT_SEC)):
                due = time.monotonic() + HEARTBEAT_SEC
                gevent.sleep(HEARTBEAT_SEC)
                late.append(round(time.monotonic() - due, 5))
            self._write({"kind": "late", "sec": late})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


run: Run


@events.init.add_listener
def begin(environment: Any, **_: Any) -> None:
    global run
    run = Run(environment)


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    run.close()
    environment.process_exit_code = 1 if run.num_faults else 0


class Returning(User):
    """Closed arrival: as many as there are, one visit after the other."""

    abstract = PLAN.num_users == 0
    wait_time = constant(0)

    @task
    def visit(self) -> None:
        run.visitor(PLAN.habits, self.host or "").visit()


class Arrivals(User):
    """Open arrival; visitors are greenlets of their own and no locust users."""

    abstract = PLAN.rate == 0
    fixed_count = 1

    @task
    def arrive(self) -> None:
        visits = []
        rng = random.Random(PLAN.seed)
        for at in poisson_arrivals(PLAN.rate, PROFILES[PLAN.profile], PLAN.duration_sec, rng):
            gevent.sleep(max(0.0, at - run.age_sec))
            visits.append(gevent.spawn(run.visitor(PLAN.arrival_habits, self.host or "").visit))
        gevent.joinall(visits)
        self.stop()


class Load(LoadTestShape):
    """The number of locust users at each time; the open arrivals are one."""

    def tick(self) -> tuple[int, float] | None:
        if run.is_over():
            return None
        is_steady_beside = PLAN.rate > 0  # the profile is that of the arrivals
        share = 1.0 if is_steady_beside else PROFILES[PLAN.profile](run.age_sec / PLAN.duration_sec)
        num_users = round(share * PLAN.num_users) + (PLAN.rate > 0)
        return max(num_users, 1), max(PLAN.num_users, 1)
