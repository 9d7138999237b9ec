"""Workload: what the users of a day do, and the conversations that come of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from ..config import check_int, check_number
from .simulation import Answer, Ask, Simulation


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Conversations arrive at random (Poisson); a user reads and thinks before the next turn."""

    daily_users: float
    turns: float = 5.0  # of a user in a day, in one conversation
    reply_tokens: float = 200.0  # mean
    message_tokens: float = 40.0  # mean, of what the user writes
    system_tokens: int = 0  # before every conversation
    think_sec: float = 30.0  # mean, from the end of a reply to the next turn
    peak_share: float = 0.1  # of the day's turns, in its busiest hour
    spread: float = 0.6  # of lengths: standard deviation over mean (log-normal)
    context_len: int = 1024  # tokens of prompt and reply together
    max_new_tokens: int = 512  # of a reply

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
        """In the busiest hour."""
        return self.daily_users * self.turns * self.peak_share / 3600

    @property
    def max_prompt_len(self) -> int:
        return self.context_len - self.max_new_tokens

    def at_rate(self, turns_per_sec: float) -> Workload:
        """The same users, more or fewer of them."""
        return replace(self, daily_users=self.daily_users * turns_per_sec / self.turns_per_sec)


class Conversations:
    """Those of one simulation. It begins with as many under way as there would be at any time."""

    def __init__(self, workload: Workload, simulation: Simulation, seed: int) -> None:
        self.workload = workload
        self.simulation = simulation
        self.random = Random(seed)
        self.num_visitors = 0
        self._until = 0.0

    def begin(self, num_sec: float) -> None:
        """:param num_sec: nobody asks for anything after so many seconds"""
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
        self.simulation.at(at, lambda: self._ask(visitor, num_turns, history))

    def _ask(self, visitor: int, num_turns: int, history: int) -> None:
        """A refused turn is not tried again; the user goes on with the next one."""
        if self.simulation.clock.now >= self._until:
            return
        w, message = self.workload, self._message()
        whole = w.system_tokens + history + message
        ask = Ask(
            visitor=visitor,
            prompt_tokens=min(whole, w.max_prompt_len),
            reply_tokens=self._reply(),
            system_tokens=min(w.system_tokens, w.max_prompt_len),
            num_dropped=max(whole - w.max_prompt_len, 0),
        )

        def go_on(answer: Answer) -> None:
            kept = 0 if answer.is_refused else message + answer.reply_tokens
            if num_turns > 1:
                at = self.simulation.clock.now + self._think_sec()
                self.simulation.at(at, lambda: self._ask(visitor, num_turns - 1, history + kept))

        self.simulation.ask(ask, go_on)

    def _think_sec(self) -> float:
        mean = self.workload.think_sec
        return self.random.expovariate(1 / mean) if mean else 0.0

    def _num_turns(self) -> int:
        """At random between whole numbers, so that the mean is right."""
        whole = math.floor(self.workload.turns)
        return whole + (self.random.random() < self.workload.turns - whole)

    def _message(self) -> int:
        return self._length(self.workload.message_tokens, self.workload.max_prompt_len)

    def _reply(self) -> int:
        return self._length(self.workload.reply_tokens, self.workload.max_new_tokens)

    def _length(self, mean: float, longest: int) -> int:
        return length(self.random, mean, self.workload.spread, longest)


def length(random: Random, mean: float, spread: float, longest: int) -> int:
    """Log-normal with this mean, cut at the longest."""
    sigma = math.sqrt(math.log1p(spread * spread))
    return min(max(round(random.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)), 1), longest)
