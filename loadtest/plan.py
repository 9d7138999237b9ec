"""Plan: the parameters of one run of the generator, passed as JSON in LOADTEST_PLAN."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from math import inf

from .visitor import Habits

VARIABLE = "LOADTEST_PLAN"
ONE_QUESTION = Habits(max_turns=1, think_sec=0.0, regenerate=0.0, clear=0.0, leave=0.0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Closed arrival (`num_users` who return after each visit), open arrival (`rate`), or both."""

    records: str  # path of the output file
    model: str = "mock"  # "mock", "demo", "other" for a model that may forget names, or "any" for any replies
    duration_sec: float = 10.0
    num_users: int = 0
    rate: float = 0.0  # peak, in visitors per second
    profile: str = "steady"
    words: tuple[int, int] = (10, 30)  # range per message to the mock
    habits: Habits = Habits()  # noqa: RUF009, frozen
    arrival_habits: Habits = ONE_QUESTION  # of visitors who arrive at `rate`
    seed: int = 0

    def to_environ(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of_environ(cls) -> Plan:
        """Return the plan of the environment; without one, the plan of a locust that is started by hand.

        Then locust's own options (-u, -r, -t) say how many users there are and for how long, and nothing is
        known of the app.
        """
        if VARIABLE not in os.environ:
            habits = Habits(needs_all_apis=False)
            return cls(records="loadtest.jsonl", model="any", duration_sec=inf, num_users=1, habits=habits)
        fields = json.loads(os.environ[VARIABLE])
        for name in ("habits", "arrival_habits"):
            if name in fields:
                fields[name] = Habits(**fields[name])
        return cls(**fields | ({"words": tuple(fields["words"])} if "words" in fields else {}))
