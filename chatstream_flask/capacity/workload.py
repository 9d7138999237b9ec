"""Workload: the users of a day, and the conversations that they have in its busiest hour."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from ..config import check_int, check_number
from .simulation import Simulation, TurnRequest, TurnResult


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Users who start conversations at random (a Poisson process) and think before each further turn."""

    daily_users: float
    turns: float = 5.0  # mean per user and day, all in one conversation
    reply_tokens: float = 200.0  # mean
    message_tokens: float = 40.0  # mean
    system_tokens: int = 0  # length of the system text
    think_sec: float = 30.0  # mean time from the end of a reply to the next turn
    peak_share: float = 0.1  # turns in the busiest hour / turns of the day
    spread: float = 0.6  # standard deviation / mean of the lengths, which are log-normal
    context_len: int = 1024  # tokens of prompt and reply together
    max_new_tokens: int = 512  # most tokens of a reply

    def __post_init__(self) -> None:
        check_number("daily users", self.daily_users, 0.001, 10**9)
        check_number("turns", self.turns, 1, 1000)
        check_number("reply tokens", self.reply_tokens, 1, 10**6)
        check_number("message tokens", self.message_tokens, 1, 10**6)
        check_int("system tokens", self.system_tokens, 0, 10**6)
        check_number("think seconds", self.think_sec, 0, 86_400)
        check_number("peak share", self.peak_share, 0.0001, 1)
        check_number("spread", self.spread, 0, 10)
        check_int("context length", self.context_len, 2)
        check_int("max_new_tokens", self.max_new_tokens, 1, self.context_len - 1)

    @property
    def turns_per_sec(self) -> float:
        """Return the rate of turns in the busiest hour."""
        return self.daily_users * self.turns * self.peak_share / 3600

    @property
    def max_prompt_len(self) -> int:
        """Return the most tokens of a prompt."""
        return self.context_len - self.max_new_tokens

    def at_rate(self, turns_per_sec: float) -> Workload:
        """Return the workload of so many more or fewer users that the busiest hour has this rate."""
        return replace(self, daily_users=self.daily_users * turns_per_sec / self.turns_per_sec)


class SimulatedUsers:
    """Users of one simulation; it starts with as many running conversations as there are on average."""

    def __init__(self, workload: Workload, simulation: Simulation, seed: int) -> None:
        self.workload = workload
        self.simulation = simulation
        self.random = Random(seed)
        self.num_visitors = 0
        self._until = 0.0

    def begin(self, num_sec: float) -> None:
        """Schedule all conversations.

        :param num_sec: time after which no turn starts
        """
        self._until = num_sec
        w = self.workload
        rate = w.turns_per_sec / w.turns
        thinking = rate * (w.turns - 1) * w.think_sec
        for _ in range(int(thinking) + (self.random.random() < thinking % 1)):
            num_turns = max(self._num_turns(), 2)
            num_done = self.random.randrange(1, num_turns)
            history = sum(self._message() + self._reply() for _ in range(num_done))
            self._start(self._think_sec(), num_turns - num_done, history)
        at = self.random.expovariate(rate)
        while at < num_sec:
            self._start(at, self._num_turns(), 0)
            at += self.random.expovariate(rate)

    def _start(self, at: float, num_turns: int, history: int) -> None:
        self.num_visitors += 1
        visitor = self.num_visitors
        self.simulation.at(at, lambda: self._start_turn(visitor, num_turns, history))

    def _start_turn(self, visitor: int, num_turns: int, history: int) -> None:
        """Start a turn. A refused turn is not retried: the user continues with the next one."""
        if self.simulation.clock.now >= self._until:
            return
        w, message = self.workload, self._message()
        whole = w.system_tokens + history + message
        turn = TurnRequest(
            visitor=visitor,
            prompt_tokens=min(whole, w.max_prompt_len),
            reply_tokens=self._reply(),
            system_tokens=min(w.system_tokens, w.max_prompt_len),
            num_dropped=max(whole - w.max_prompt_len, 0),
        )

        def continue_conversation(result: TurnResult) -> None:
            added = 0 if result.is_refused else message + result.reply_tokens
            if num_turns > 1:
                at = self.simulation.clock.now + self._think_sec()
                self.simulation.at(at, lambda: self._start_turn(visitor, num_turns - 1, history + added))

        self.simulation.submit(turn, continue_conversation)

    def _think_sec(self) -> float:
        mean = self.workload.think_sec
        return self.random.expovariate(1 / mean) if mean else 0.0

    def _num_turns(self) -> int:
        """Return one of the two integers around the mean number of turns, at random with that mean."""
        whole = math.floor(self.workload.turns)
        return whole + (self.random.random() < self.workload.turns - whole)

    def _message(self) -> int:
        return self._length(self.workload.message_tokens, self.workload.max_prompt_len)

    def _reply(self) -> int:
        return self._length(self.workload.reply_tokens, self.workload.max_new_tokens)

    def _length(self, mean: float, longest: int) -> int:
        return random_length(self.random, mean, self.workload.spread, longest)


def random_length(random: Random, mean: float, spread: float, longest: int) -> int:
    """Return a log-normal length with this mean, at least 1 and at most `longest`."""
    sigma = math.sqrt(math.log1p(spread * spread))
    return min(max(round(random.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)), 1), longest)
