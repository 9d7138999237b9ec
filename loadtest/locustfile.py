"""Locust's users: those who come back when they are done (closed arrival), and those who come when they come
(open arrival: one locust user that spawns visitors at Poisson times, however many are still there).

Rows beside the request's own, whose time is that of the headers: QUEUE (to a slot), TTFT (to the first text),
ITL (mean between arrivals of text), E2E, REFUSED.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import random
from typing import Any

import gevent
from locust import LoadTestShape, User, constant, events, task

from loadtest.arrival import PROFILES, poisson_arrivals
from loadtest.plan import Plan
from loadtest.visits import Visits

PLAN = Plan.of_environ()
visits: Visits


@events.init.add_listener
def begin(environment: Any, **_: Any) -> None:
    global visits
    visits = Visits(PLAN, environment)


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    visits.close()
    environment.process_exit_code = 1 if visits.num_faults else 0


class Returning(User):
    """Closed arrival: as many as there are, one visit after the other."""

    abstract = PLAN.num_users == 0
    wait_time = constant(0)

    @task
    def visit(self) -> None:
        visits.visit(PLAN.habits, self.host or "")


class Arrivals(User):
    """Open arrival; visitors are greenlets of their own and no locust users."""

    abstract = PLAN.rate == 0
    fixed_count = 1

    @task
    def arrive(self) -> None:
        visiting = []
        rng = random.Random(PLAN.seed)
        for at in poisson_arrivals(PLAN.rate, PROFILES[PLAN.profile], PLAN.duration_sec, rng):
            gevent.sleep(max(0.0, at - visits.age_sec))
            visiting.append(gevent.spawn(visits.visit, PLAN.arrival_habits, self.host or ""))
        gevent.joinall(visiting)
        self.stop()


class Load(LoadTestShape):
    """The number of locust users at each time; the open arrivals are one."""

    def tick(self) -> tuple[int, float] | None:
        if visits.is_over():
            return None
        is_steady_beside = PLAN.rate > 0  # the profile is that of the arrivals
        share = 1.0 if is_steady_beside else PROFILES[PLAN.profile](visits.age_sec / PLAN.duration_sec)
        num_users = round(share * PLAN.num_users) + (PLAN.rate > 0)
        return max(num_users, 1), max(PLAN.num_users, 1)
