"""Locust's users: a fixed number who return after each visit (closed arrival), or Poisson (open) arrivals.

For open arrival one locust user spawns visitors at Poisson times, however many are still being served.

The time of a request's own row ends at the response headers. Further rows: QUEUE (until a slot is assigned),
TTFT (until the first text), ITL (mean interval between text events), E2E, REFUSED.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import random
from math import inf
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
    """Closed arrival: each user makes one visit after the other."""

    abstract = PLAN.num_users == 0
    wait_time = constant(0)

    @task
    def visit(self) -> None:
        visits.visit(PLAN.habits, self.host or "")


class Arrivals(User):
    """Open arrival; visitors are greenlets, not locust users."""

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
    """Number of locust users over time; the user that spawns open arrivals counts as one."""

    abstract = PLAN.duration_sec == inf  # by hand: locust's options -u, -r and -t

    def tick(self) -> tuple[int, float] | None:
        if visits.is_over():
            return None
        are_users_steady = PLAN.rate > 0  # then the profile applies to the arrivals
        share = 1.0 if are_users_steady else PROFILES[PLAN.profile](visits.age_sec / PLAN.duration_sec)
        num_users = round(share * PLAN.num_users) + (PLAN.rate > 0)
        return max(num_users, 1), max(PLAN.num_users, 1)
