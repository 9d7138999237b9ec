"""Scripts: what a visitor says, and how its replies are judged."""

from __future__ import annotations

import random
import re
from typing import Protocol

from .record import FORGOTTEN, MIXED_UP, RIGHT, WRONG

NAMES = (
    *("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Jack", "Kate", "Leo", "Maria"),
    *("Nina", "Oscar", "Paula", "Rosa", "Tina", "Vera", "Alice", "Bob", "Charlie", "Diana", "Ethan", "Fiona"),
    *("George", "Hannah", "Julia", "Kevin", "Laura", "Mike", "Nora", "Oliver", "Peter", "Rachel", "Sarah"),
    *("Tom", "Ursula", "Victor", "Wendy", "Chris"),
)
CANARY = re.compile(r"visitor-[0-9a-f]{12}")
WORDS = ("lamp", "boat", "storm", "harbour", "night", "bread", "beam", "water", "morning")
SMALL_TALK = ("Hello!", "What is the capital of France?", "What is 2 plus 3?", "What colour is the sky?")


class Script(Protocol):
    """The messages of one visitor; they start over after the conversation is cleared."""

    name: str

    def next_message(self) -> str: ...

    def judge(self, asked: str, reply: str) -> tuple[str, str]:
        """Return a verdict and, for humans, what was wrong."""

    def restart(self) -> None: ...


class EchoScript:
    """Script for the echo mock: each message contains the visitor's unique name; the reply must equal it."""

    def __init__(self, rng: random.Random, words: tuple[int, int]) -> None:
        self.name = f"visitor-{rng.getrandbits(48):012x}"
        self._rng = rng
        self._words = words  # least and most per message, and so per reply
        self._num_said = 0

    def next_message(self) -> str:
        self._num_said += 1
        head = ["My", "name", "is", self.name, f"message-{self._num_said}"]
        num_more = self._rng.randint(*self._words) - len(head)
        return " ".join(head + [self._rng.choice(WORDS) for _ in range(num_more)])

    def judge(self, asked: str, reply: str) -> tuple[str, str]:
        if reply == asked:
            return RIGHT, ""
        others = set(CANARY.findall(reply)) - {self.name}
        if others:
            return MIXED_UP, f"{self.name} was told what {', '.join(sorted(others))} said: {reply[:200]!r}"
        return WRONG, f"{self.name} said {asked[:80]!r} and was told {reply[:80]!r}"

    def restart(self) -> None: ...


class NameScript:
    """Script for a model that remembers names: tell one's name, change the subject, then ask for it."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.name = NAMES[number % len(NAMES)]
        self._others = re.compile(r"\b(" + "|".join(name for name in NAMES if name != self.name) + r")\b")
        self._rng = rng
        self._num_said = 0

    def next_message(self) -> str:
        self._num_said += 1
        if self._num_said == 1:
            return f"My name is {self.name}."
        return "What is my name?" if self._num_said % 2 else self._rng.choice(SMALL_TALK)

    def judge(self, asked: str, reply: str) -> tuple[str, str]:
        if others := self._others.findall(reply):
            return MIXED_UP, f"{self.name} was told of {', '.join(others)}: {reply[:200]!r}"
        if asked == "What is my name?" and self.name not in reply:
            return FORGOTTEN, f"{self.name} asked for its own name and was told {reply[:200]!r}"
        return RIGHT, ""

    def restart(self) -> None:
        self._num_said = 0


class SmallTalkScript:
    """Script for a model of which nothing is known: every whole reply is right."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.name = f"visitor-{number}"
        self._rng = rng

    def next_message(self) -> str:
        return self._rng.choice(SMALL_TALK)

    def judge(self, asked: str, reply: str) -> tuple[str, str]:
        return RIGHT, ""

    def restart(self) -> None: ...
